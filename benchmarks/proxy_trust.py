"""The ranking of cells by cheap runs: proxies against end-to-end training as long as a user would retrain.

    python benchmarks/proxy_trust.py --data folder:PATH --train-split search-train --val-split search-val \
        --weights FILE --full-steps 600 --out trust-camvid.json

Nine cells: a 1×1 head, ASPP, the published cell and six random ones. Each is trained with every seed, end to end and by
every proxy. A proxy is the part of the network after a cut, trained on stored features of a backbone that was trained
on the data with a head first:

    frozen            cut after the backbone, backbone trained with ASPP
    frozen-1x1        the same, backbone trained with a 1×1 head
    last-blocks       cut before the backbone's last four blocks, which are trained on with the cell
    small-images      no cut: end to end on images of half the size, for a quarter of the steps

The table gives Spearman's rank correlation of each proxy at each of its lengths with the end-to-end means (for the mean
over seeds, and the mean of what single seeds give), and the seconds that one candidate takes.
"""

import argparse
import itertools
import json
import multiprocessing
import random
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from baselines.dense_prediction_cell import ASPP, CONV1X1, PUBLISHED, Cell
from nasseg.data import Augment, FeatureCache, evaluation_batches, normalise, open_dataset
from nasseg.data.batches import seeded
from nasseg.data.resized import Resized
from nasseg.experiment.trust import pooled_deviation
from nasseg.jobs.features import with_image_size
from nasseg.planning.plan import search_crop
from nasseg.rank_correlation import kendall, spearman
from nasseg.train.evaluate import evaluate
from nasseg.train.fit import fit, seeded_network
from nasseg.train.recipes import short
from nasseg.train.trainer import Trainer
from nasseg.train.weights.loading import load_pretrained
from search_spaces.dpc import DPC

LABEL_STRIDE = 4
PROXIES = {
    "frozen": ("aspp", "backbone"),
    "frozen-1x1": ("1x1", "backbone"),
    "last-blocks": ("aspp", "backbone.features.13"),
}
"""The head that the backbone was trained with, and the cut."""
CORRELATIONS = ("spearman", "kendall", "spearman_single_seed")


def cells(random_cells: int) -> dict[str, Cell]:
    space, rng = DPC(), random.Random(1)
    drawn = {f"random{i}": space.canonical(space.sample(rng)) for i in range(random_cells)}
    return {"1x1": CONV1X1, "aspp": ASPP, "dpc": PUBLISHED, **drawn}


class Study:
    """The data, the space and the folder of results, opened in each process."""

    def __init__(self, args):
        torch.set_num_threads(args.threads)
        self.args = args
        self.device = torch.device(args.device)
        self.space = DPC(filters=args.filters)
        dataset = open_dataset(args.data)
        self.classes, self.ignore_index = len(dataset.classes), dataset.ignore_index
        self.train, self.val = (
            Resized(dataset.split(name), args.image_scale) for name in (args.train_split, args.val_split)
        )
        self.size = tuple(self.val[0].mask.shape)

    def architecture(self, name):
        return self.space.architecture(cells(self.args.random_cells)[name], self.classes)

    def recipe(self, steps, image_scale):
        crop = search_crop(self.size, image_scale)
        scale = tuple(self.args.scale_range)
        return short(steps=steps, crop=crop, batch_size=self.args.batch_size, scale=scale)

    def end_to_end(self, name, seed, steps, image_scale, keep=False):
        """Train end to end; returns (mIoU, seconds). `keep` stores the weights for the proxies."""
        network = seeded_network(self.architecture(name), seed)
        if self.args.weights:
            load_pretrained(network, self.args.weights)
        train, val = Resized(self.train, image_scale), Resized(self.val, image_scale)
        start = time.perf_counter()
        trainer, log = fit(network, self.recipe(steps, image_scale), train, device=self.device, seed=seed)
        batches = (batch for batch, _ in evaluation_batches(val, 8, self.device))
        metrics = evaluate(trainer.ema_network(), batches, self.classes, self.ignore_index, self.device)
        if keep:
            torch.save(trainer.ema_network().state_dict(), self.weights_file(name))
        return metrics.miou if log.status == "finished" else 0.0, time.perf_counter() - start

    def weights_file(self, name):
        return Path(self.args.work) / f"{name}.pt"

    def features(self, head, cut, part):
        key = {"head": head, "cut": cut, "part": part}
        split, views = (self.train, self.args.views) if part == "train" else (self.val, 1)
        folder, compute = Path(self.args.work) / "features", self.computing(head, cut, part)
        return FeatureCache.open_or_fill(folder, key, views, len(split), 8, compute)

    def computing(self, head, cut, part):
        prefix, _ = self.architecture(head).cut(cut)
        network = seeded_network(prefix, 0).eval()
        weights = torch.load(self.weights_file(head), weights_only=True, map_location="cpu")
        network.load_state_dict({name: weights[name] for name in network.state_dict()})
        network.to(self.device, memory_format=torch.channels_last)
        recipe = self.recipe(1, 1.0)
        augment = Augment(crop=recipe.crop, scale=recipe.scale, flip=True, colour=recipe.colour)
        split = self.train if part == "train" else self.val

        @torch.inference_mode()
        def compute(block):
            samples = [split[i] for i in range(block.start, block.stop)]
            images, masks = [sample.image for sample in samples], [sample.mask for sample in samples]
            if part == "train":
                generator = seeded(0, block.view, block.start)
                pixels, truth = augment(images, masks, generator, self.ignore_index, device=self.device)
            else:
                pixels, truth = normalise(torch.stack(images).to(self.device)), torch.stack(masks).long()
            middle = LABEL_STRIDE // 2
            features = network.outputs({"image": pixels.contiguous(memory_format=torch.channels_last)})
            return features, truth[:, middle::LABEL_STRIDE, middle::LABEL_STRIDE]

        return compute

    def proxy(self, kind, name, seed, lengths):
        """Train the part after the cut on stored features; returns [(mIoU, seconds)] after each of `lengths` steps."""
        head, cut = PROXIES[kind]
        _, suffix = self.architecture(name).cut(cut)
        network = seeded_network(suffix, seed)
        weights = torch.load(self.weights_file(head), weights_only=True, map_location="cpu")
        own = network.state_dict()
        network.load_state_dict({**own, **{n: w for n, w in weights.items() if n in own and n.startswith("backbone")}})
        cache, val = self.features(head, cut, "train"), self.features(head, cut, "val")
        results, start = [], time.perf_counter()
        recipe = self.recipe(lengths[-1], 1.0)
        trainer = Trainer(network, recipe, recipe.steps, self.device, seed, self.ignore_index)
        batches = map(with_image_size, cache.batches(recipe.batch_size, seed, 0, self.device))
        for steps in lengths:
            log = trainer.run(batches, steps)
            scored = map(with_image_size, val.sequential(8, self.device))
            metrics = evaluate(trainer.ema_network(), scored, self.classes, self.ignore_index, self.device)
            results.append((metrics.miou if log.status == "finished" else 0.0, time.perf_counter() - start))
        return results


def run(args, task, *arguments):
    global study
    if "study" not in globals():
        study = Study(args)
    return getattr(study, task)(*arguments)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="streets")
    parser.add_argument("--train-split", default="train")
    parser.add_argument("--val-split", default="val")
    parser.add_argument("--weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--full-steps", type=int, default=600)
    parser.add_argument("--lengths", type=int, nargs="+", default=[40, 120, 360])
    parser.add_argument("--scale-range", type=float, nargs=2, default=[0.5, 2.0])
    parser.add_argument("--image-scale", type=float, default=1.0, help="of all runs except small-images")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--filters", type=int, default=256)
    parser.add_argument("--random-cells", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--cells", nargs="+", help="these alone, such as 1x1 aspp")
    parser.add_argument("--proxies", nargs="*", default=[*PROXIES, "small-images"])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", default="proxy-trust")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main():
    args = parse_arguments()
    Path(args.work).mkdir(parents=True, exist_ok=True)

    names, seeds = args.cells or list(cells(args.random_cells)), range(args.seeds)
    context = multiprocessing.get_context("spawn")
    full, proxies = {}, {}
    with ProcessPoolExecutor(args.processes, mp_context=context) as pool:
        kinds = [kind for kind in args.proxies if kind in PROXIES]
        heads = {PROXIES[kind][0] for kind in kinds}
        first = {h: pool.submit(run, args, "end_to_end", h, 0, args.full_steps, 1.0, True) for h in sorted(heads)}
        rest = [(n, s) for s in seeds for n in names if not (n in first and s == 0)]
        full = {(n, s): pool.submit(run, args, "end_to_end", n, s, args.full_steps, 1.0) for n, s in rest}
        full |= {(head, 0): future for head, future in first.items()}
        if "small-images" in args.proxies:
            quarter = max(1, args.full_steps // 4)
            for n, s in itertools.product(names, seeds):
                proxies["small-images", quarter, n, s] = pool.submit(run, args, "end_to_end", n, s, quarter, 0.5)
        for future in first.values():
            future.result()
        by_kind = {
            (kind, n, s): pool.submit(run, args, "proxy", kind, n, s, args.lengths)
            for kind, n, s in itertools.product(kinds, names, seeds)
        }
        scores = {key: future.result() for key, future in full.items()}
        results = {key: future.result() for key, future in proxies.items()}
        for (kind, n, s), future in by_kind.items():
            for length, result in zip(args.lengths, future.result(), strict=True):
                results[kind, length, n, s] = result

    truth = {n: [scores[n, s][0] for s in seeds] for n in names}
    means = [statistics.mean(truth[n]) for n in names]
    noise = pooled_deviation(list(truth.values()))
    print(f"\nend to end, {args.full_steps} steps, {args.data}: mIoU by seed")
    for n in names:
        print(f"  {n:10} {statistics.mean(truth[n]):.4f}   " + "  ".join(f"{v:.4f}" for v in truth[n]))
    print(f"deviation between seeds {noise:.4f}; deviation of the means {statistics.stdev(means):.4f}\n")
    columns = ("ρ of means", "τ of means", "ρ, one seed", "s / candidate", "noise")
    print(f"{'proxy':14}{'steps':>7}" + "".join(f"{column:>15}" for column in columns))
    rows = []
    for kind, length in sorted({(k, length) for k, length, *_ in results}):
        by_seed = [[results[kind, length, n, s][0] for n in names] for s in seeds]
        mean = [statistics.mean(column) for column in zip(*by_seed, strict=True)]
        single = [rho for one in by_seed if (rho := spearman(one, means)) is not None]
        seconds = statistics.median(results[kind, length, n, s][1] for n in names for s in seeds)
        row = {
            "proxy": kind,
            "steps": length,
            "spearman": spearman(mean, means),
            "kendall": kendall(mean, means),
            "spearman_single_seed": statistics.mean(single) if single else None,
            "seconds": seconds,
            "noise": pooled_deviation(list(zip(*by_seed, strict=True))),
            "miou": dict(zip(names, mean, strict=True)),
        }
        rows.append(row)
        rhos = "".join(f"{'–':>15}" if row[name] is None else f"{row[name]:15.2f}" for name in CORRELATIONS)
        print(f"{kind:14}{length:7}{rhos}{seconds:15.1f}{row['noise']:15.4f}")
    seconds = statistics.median(value[1] for value in scores.values())
    print(f"one end-to-end run takes {seconds:.1f} s beside {args.processes - 1} others")
    setting = {"data": args.data, "full_steps": args.full_steps, "filters": args.filters}
    setting["device"] = torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu"
    found = {"end_to_end": truth, "seed_deviation": noise, "end_to_end_seconds": seconds, "proxies": rows}
    document = {"benchmark": "proxy_trust", **setting, **found}
    if args.out:
        args.out.write_text(json.dumps(document))
    print(json.dumps(document))


if __name__ == "__main__":
    main()
