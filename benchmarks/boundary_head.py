"""Whether a detail head, or a loss that weighs boundaries more, sharpens edges: mIoU and boundary IoU, on and off.

    OMP_NUM_THREADS=1 python benchmarks/boundary_head.py --data folder:PATH --train-split search-train \
        --val-split search-val --weights FILE --work runs/boundary-head

One network is trained by one recipe in up to four ways, with the same seeds: as it is, with STDC's detail head in
training, with a boundary weight in the loss, and with both. The table gives the mean over the seeds and, against the
network as it is, the mean difference of equal seeds with its standard error. Boundary IoU (arXiv 2103.16562) is within
2 % of the image's diagonal. A training whose result is in the `--work` folder already is not run again, and one that
was stopped goes on; a folder is for one setting.
"""

import argparse
import json
import statistics
from functools import partial
from pathlib import Path

import torch

from nasseg import plugins
from nasseg.data import evaluation_batches, open_dataset
from nasseg.data.resized import Resized
from nasseg.graph import write_atomically
from nasseg.train.evaluate import evaluate
from nasseg.train.fit import fit, seeded_network
from nasseg.train.recipes import OWN_RECIPES, recipe
from nasseg.train.weights.loading import load_pretrained

AS_IT_IS, HEAD, LOSS, BOTH = "as it is", "detail head", "boundary loss", "both"
SCORES = {"miou": "mIoU", "boundary_miou": "boundary IoU"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", default="streets")
    parser.add_argument("--train-split", default="train")
    parser.add_argument("--val-split", default="val")
    parser.add_argument("--network", default="deeplabv3plus-mobilenetv2")
    parser.add_argument("--weights")
    parser.add_argument("--image-scale", type=float, default=0.5)
    parser.add_argument("--recipe", default="long", choices=OWN_RECIPES)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--boundary-weight", type=float, default=5.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=[HEAD, LOSS, BOTH], choices=[HEAD, LOSS, BOTH])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in vars(args).items() if name not in ("work", "seeds", "ways")}
    if kept(args.work / "settings.json", lambda: settings) != settings:
        raise SystemExit(f"{args.work} holds results of other settings; give another --work")

    head, loss = {"detail_head": True}, {"boundary_weight": args.boundary_weight}
    changes_of = {AS_IT_IS: {}, HEAD: head, LOSS: loss, BOTH: head | loss}
    results = {way: [] for way in (AS_IT_IS, *args.ways)}
    for seed in range(args.seeds):
        for way in results:
            file = args.work / f"{way.replace(' ', '-')}-{seed}.json"
            results[way].append(kept(file, partial(trained, args, changes_of[way], seed, file.with_suffix(".pt"))))

    rows = {way: summary(of_way, results[AS_IT_IS]) for way, of_way in results.items()}
    print(f"\n{args.network} on {args.data}, {args.steps} steps of {args.recipe!r}, {args.seeds} seeds, {args.device}")
    print(f"{'':16}" + "".join(f"{title:>14}{'difference':>20}" for title in SCORES.values()))
    for way, row in rows.items():
        print(f"{way:16}" + "".join(f"{row[s]:14.4f}{shown(row[f'{s}_difference']):>20}" for s in SCORES))
    document = {"benchmark": "boundary_head", **settings, "seeds": args.seeds, "torch": torch.__version__}
    capability = torch.backends.cpu.get_cpu_capability()
    print(json.dumps({**document, "cpu_capability": capability, "summary": rows, "results": results}))


def trained(args, changes, seed, checkpoint):
    """Scores of a network after a training by the recipe with these changes."""
    device, dataset = torch.device(args.device), open_dataset(args.data)
    train, val = (Resized(dataset.split(name), args.image_scale) for name in (args.train_split, args.val_split))
    network = seeded_network(plugins.baseline(args.network, len(dataset.classes)), seed)
    if args.weights:
        load_pretrained(network, args.weights)
    used = recipe(args.recipe, steps=args.steps, batch_size=args.batch_size, crop=tuple(train[0].mask.shape), **changes)
    trainer, log = fit(network, used, train, device=device, seed=seed, checkpoint=checkpoint)
    if log.status == "nonfinite":
        raise SystemExit(f"the loss is not finite at step {log.step}")
    batches = (batch for batch, _ in evaluation_batches(val, args.batch_size, device))
    metrics = evaluate(
        trainer.ema_network(), batches, len(dataset.classes), dataset.ignore_index, device, boundary=True
    )
    checkpoint.unlink(missing_ok=True)
    scores = {"miou": metrics.miou, "boundary_miou": metrics.boundary_miou}
    by_class = {"class_iou": metrics.class_iou, "class_boundary_iou": metrics.class_boundary_iou}
    return {**scores, **by_class, "crop": used.crop}


def kept(file, result):
    """What `result()` gives, from `file` if it was there before."""
    if not file.exists():
        print(f"{file.stem} …", flush=True)
        write_atomically(file, json.dumps(result()))
    return json.loads(file.read_text())


def summary(results, as_it_is):
    """Means over the seeds, and the differences of equal seeds: mean and, of more than one, standard error."""
    row = {}
    for score in SCORES:
        row[score] = statistics.mean(result[score] for result in results)
        differences = [one[score] - other[score] for one, other in zip(results, as_it_is, strict=True)]
        several = len(differences) > 1
        row[f"{score}_difference"] = {
            "mean": statistics.mean(differences),
            "standard_error": statistics.stdev(differences) / len(differences) ** 0.5 if several else None,
        }
    return row


def shown(difference):
    error = difference["standard_error"]
    return f"{difference['mean']:+.4f}" + ("" if error is None else f" ± {error:.4f}")


if __name__ == "__main__":
    main()
