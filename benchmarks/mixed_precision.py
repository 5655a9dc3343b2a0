"""What bfloat16 costs and gains on a processor: the time of training steps and of scoring, and the mIoU trained to.

    OMP_NUM_THREADS=1 python benchmarks/mixed_precision.py --data folder:PATH --train-split search-train \
        --val-split search-val --weights FILE --work runs/mixed-precision

Times: the same training step, and the same scoring of one batch, in float32 and bfloat16 by turns in one process.
Baselines and a network of the Auto-DeepLab space are trained on crops, cells on stored features as in a search.

Accuracy: `deeplabv3plus-mobilenetv2` is trained end to end in both precisions with several seeds, and each result is
scored in both. Then cells are trained on stored features, made once with the first seed's float32 network: the
difference in mIoU against the deviation between seeds, and whether both precisions rank the cells alike. A training
whose result is in the `--work` folder already is not run again; a folder is for one setting.
"""

import argparse
import json
import random
import statistics
import time
from functools import cache, partial
from itertools import islice
from pathlib import Path

import torch

from baselines.dense_prediction_cell import ASPP, CONV1X1, PUBLISHED
from nasseg import plugins
from nasseg.data import Augment, Batch, evaluation_batches, open_dataset, training_batches
from nasseg.data.resized import Resized
from nasseg.experiment.trust import pooled_deviation
from nasseg.graph import write_atomically
from nasseg.network import Network
from nasseg.rank_correlation import kendall, spearman
from nasseg.train.device import mixed_precision_dtype
from nasseg.train.evaluate import evaluate
from nasseg.train.fit import fit, seeded_network
from nasseg.train.recipes import short
from nasseg.train.trainer import Trainer
from nasseg.train.weights.loading import load_pretrained
from search_spaces.dpc import DPC

CPU = torch.device("cpu")
NETWORK = "deeplabv3plus-mobilenetv2"
TIMED = (NETWORK, "stdc1", "deeplabv3plus-resnet50")
AUTO_DEEPLAB = "auto_deeplab:layers=6,blocks=3,filters=8,stem_filters=16,head_filters=64,decoder=false"
LABEL_STRIDE = 4
PRECISIONS = {"float32": False, "bfloat16": True}
"""What a recipe's `amp` is."""


class Study:
    """The data, and trainings on it."""

    def __init__(self, args):
        self.args = args
        dataset = open_dataset(args.data)
        self.classes, self.ignore_index = len(dataset.classes), dataset.ignore_index
        self.train, self.val = (
            Resized(dataset.split(name), args.image_scale) for name in (args.train_split, args.val_split)
        )
        self.recipe = partial(short, crop=tuple(args.crop), batch_size=args.batch_size)

    def batches(self, steps):
        recipe = self.recipe()
        augment = Augment(crop=recipe.crop, scale=recipe.scale, flip=recipe.flip, colour=recipe.colour)
        return islice(training_batches(self.train, augment, recipe.batch_size, 0), steps)

    def val_batches(self):
        return (batch for batch, _ in evaluation_batches(self.val, self.args.batch_size, CPU))

    def score(self, network, batches, amp):
        return evaluate(network, batches, self.classes, self.ignore_index, CPU, amp=amp)

    def network(self, seed):
        network = seeded_network(plugins.baseline(NETWORK, self.classes), seed)
        if self.args.weights:
            load_pretrained(network, self.args.weights)
        return network

    def backbone_file(self):
        return self.args.work / "backbone.pt"

    def end_to_end(self, precision, seed):
        """mIoU of a training in `precision`, by the precision that it is scored in."""
        recipe = self.recipe(self.args.steps, amp=PRECISIONS[precision])
        trainer, log = fit(self.network(seed), recipe, self.train, device=CPU, seed=seed)
        network = trainer.ema_network()
        if precision == "float32" and seed == 0:
            torch.save(network.state_dict(), self.backbone_file())
        scores = {scored: self.score(network, self.val_batches(), amp).miou for scored, amp in PRECISIONS.items()}
        return {"miou": scores, "loss": statistics.mean(log.losses[-10:]), "seconds": log.seconds}

    @cache  # noqa: B019 - lives as long as the process
    def features(self):
        """The frozen backbone's outputs on the batches of a proxy training, and on the validation images."""
        prefix, _ = DPC().architecture(ASPP, self.classes).cut("backbone")
        network = Network(prefix).eval()
        weights = torch.load(self.backbone_file(), weights_only=True)
        network.load_state_dict({name: weights[name] for name in network.state_dict()})
        with torch.no_grad():
            return tuple(
                [stored(network, batch) for batch in batches]
                for batches in (self.batches(self.args.proxy_steps), self.val_batches())
            )

    def proxy_trainer(self, cell, precision, seed):
        _, suffix = DPC().architecture(cell, self.classes).cut("backbone")
        recipe = self.recipe(self.args.proxy_steps, amp=PRECISIONS[precision])
        return Trainer(seeded_network(suffix, seed), recipe, recipe.steps, CPU, seed, self.ignore_index)

    def proxy(self, cell, precision, seed):
        train, val = self.features()
        order = random.Random(seed).sample(train, len(train))
        trainer = self.proxy_trainer(cell, precision, seed)
        log = trainer.run(order, len(order))
        return {"miou": self.score(trainer.ema_network(), val, PRECISIONS[precision]).miou, "seconds": log.seconds}


def stored(network, batch):
    """A batch of features in place of images, with masks at the stride that cells are trained at."""
    middle = LABEL_STRIDE // 2
    masks = batch.masks[:, middle::LABEL_STRIDE, middle::LABEL_STRIDE].clone()
    features = {name: value.clone() for name, value in network.outputs(batch.inputs).items()}
    return Batch({**features, "image": torch.zeros(1, 1, *masks.shape[1:])}, masks)


def cells(number):
    """The 1×1 head, ASPP, the published cell and random ones."""
    space, rng = DPC(), random.Random(1)
    drawn = {f"random{i}": space.canonical(space.sample(rng)) for i in range(number)}
    return {"1x1": CONV1X1, "aspp": ASPP, "dpc": PUBLISHED, **drawn}


def kept(file, result):
    """What `result()` gives, from `file` if it was there before."""
    if not file.exists():
        print(f"{file.stem} …", flush=True)
        write_atomically(file, json.dumps(result()))
    return json.loads(file.read_text())


def in_turns(rounds, calls):
    """Median seconds of each call, after one that does not count; they take turns."""
    times = {name: [] for name in calls}
    for counts in (False, *[True] * rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if counts:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def step_times(study, trainers, batch):
    """Median seconds by what is timed and precision: a training step on `batch`, and a scoring of it."""
    rounds = study.args.rounds
    train = {name: partial(one_step, trainer, batch) for name, trainer in trainers.items()}
    score = {
        name: partial(study.score, trainer.network, [batch], PRECISIONS[name]) for name, trainer in trainers.items()
    }
    return {"step": in_turns(rounds, train), "scoring": in_turns(rounds, score)}


def one_step(trainer, batch):
    trainer.run([batch], trainer.step + 1)


def times(study):
    """Seconds of steps and scorings by what is trained."""
    batch = next(study.batches(1))
    space = plugins.space(AUTO_DEEPLAB)
    published = next(iter(space.references().values()))
    networks = {name: plugins.baseline(name, study.classes) for name in TIMED}
    networks["network of auto_deeplab"] = space.architecture(space.canonical(published), study.classes)
    result = {}
    for name, architecture in networks.items():
        trainers = {
            precision: Trainer(
                seeded_network(architecture, 0), study.recipe(1000, amp=amp), 1000, CPU, 0, study.ignore_index
            )
            for precision, amp in PRECISIONS.items()
        }
        result[name] = step_times(study, trainers, batch)
    for name, cell in cells(0).items():
        trainers = {precision: study.proxy_trainer(cell, precision, 0) for precision in PRECISIONS}
        result[f"cell {name}, stored features"] = step_times(study, trainers, study.features()[0][0])
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", default="streets")
    parser.add_argument("--train-split", default="train")
    parser.add_argument("--val-split", default="val")
    parser.add_argument("--weights")
    parser.add_argument("--image-scale", type=float, default=0.5)
    parser.add_argument("--crop", type=int, nargs=2, default=[176, 240], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5, help="of the times")
    parser.add_argument("--steps", type=int, default=120, help="of a training end to end")
    parser.add_argument("--seeds", type=int, default=4, help="of the trainings end to end")
    parser.add_argument("--proxy-steps", type=int, default=60)
    parser.add_argument("--proxy-seeds", type=int, default=2)
    parser.add_argument("--random-cells", type=int, default=4)
    args = parser.parse_args()
    if mixed_precision_dtype(CPU) != torch.bfloat16:
        raise SystemExit("this processor has no instructions for bfloat16: there is nothing to compare")
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    study, tried = Study(args), cells(args.random_cells)

    full = {
        seed: {p: kept(args.work / f"full-{p}-{seed}.json", partial(study.end_to_end, p, seed)) for p in PRECISIONS}
        for seed in range(args.seeds)
    }
    timed = kept(args.work / "times.json", partial(times, study))
    proxy = {
        (name, seed): {
            p: kept(args.work / f"proxy-{name}-{p}-{seed}.json", partial(study.proxy, cell, p, seed))
            for p in PRECISIONS
        }
        for seed in range(args.proxy_seeds)
        for name, cell in tried.items()
    }

    print("\nseconds, one thread, in turns")
    print(f"{'':30}" + "".join(f"{title:>34}" for title in ("training step", "scoring of a batch")))
    print(f"{'':30}" + 2 * f"{'float32':>12}{'bfloat16':>12}{'ratio':>10}")
    for name, by_call in timed.items():
        row = "".join(
            f"{t['float32']:12.3f}{t['bfloat16']:12.3f}{t['float32'] / t['bfloat16']:10.2f}" for t in by_call.values()
        )
        print(f"{name:30}{row}")

    print(f"\n{NETWORK}, {args.steps} steps end to end: mIoU by seed")
    ways = [(trained, scored) for trained in PRECISIONS for scored in PRECISIONS]
    miou = {way: [by_precision[way[0]]["miou"][way[1]] for by_precision in full.values()] for way in ways}
    for (trained, scored), values in miou.items():
        print(f"  {trained:>8}, scored in {scored:8} {statistics.mean(values):.4f}   {numbers(values)}")
    end_to_end = compared([miou["float32", "float32"]], [miou["bfloat16", "bfloat16"]])
    show(end_to_end)
    print(f"\ncells on stored features, {args.proxy_steps} steps: mIoU by seed, float32 and bfloat16")
    by_cell = {
        p: {name: [proxy[name, seed][p]["miou"] for seed in range(args.proxy_seeds)] for name in tried}
        for p in PRECISIONS
    }
    for name in tried:
        print(f"  {name:10} {numbers(by_cell['float32'][name])}   {numbers(by_cell['bfloat16'][name])}")
    cell_difference = compared(list(by_cell["float32"].values()), list(by_cell["bfloat16"].values()))
    show(cell_difference)
    means = {p: [statistics.mean(values) for values in by_cell[p].values()] for p in PRECISIONS}
    seeds = [[values[seed] for values in by_cell["float32"].values()] for seed in range(args.proxy_seeds)]
    ranks = {
        "spearman": spearman(means["float32"], means["bfloat16"]),
        "kendall": kendall(means["float32"], means["bfloat16"]),
        "spearman_two_float32_seeds": spearman(seeds[0], seeds[1]) if args.proxy_seeds > 1 else None,
    }
    print("rank agreement of the means: " + ", ".join(f"{name} {value}" for name, value in ranks.items()))
    document = {
        "benchmark": "mixed_precision",
        "data": args.data,
        "image_scale": args.image_scale,
        "crop": args.crop,
        "batch_size": args.batch_size,
        "device": "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": 1,
        "torch": torch.__version__,
        "steps": args.steps,
        "proxy_steps": args.proxy_steps,
        "seconds": timed,
        "end_to_end": {f"{t}, scored in {s}": values for (t, s), values in miou.items()},
        "end_to_end_difference": end_to_end,
        "proxy": by_cell,
        "proxy_difference": cell_difference,
        "ranks": ranks,
    }
    print(json.dumps(document))


def numbers(values):
    return " ".join(f"{value:.4f}" for value in values)


def compared(float32, bfloat16):
    """How much bfloat16 adds to the mIoU, seed by seed, given by network and seed."""
    differences = [b - f for fs, bs in zip(float32, bfloat16, strict=True) for f, b in zip(fs, bs, strict=True)]
    return {
        "mean": statistics.mean(differences),
        "standard_error": statistics.stdev(differences) / len(differences) ** 0.5,
        "seed_deviation_float32": pooled_deviation(float32),
        "seed_deviation_bfloat16": pooled_deviation(bfloat16),
    }


def show(difference):
    print("bfloat16 − float32: " + ", ".join(f"{name} {value:.4f}" for name, value in difference.items()))


if __name__ == "__main__":
    main()
