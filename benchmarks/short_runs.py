"""How early short runs rank networks at equal latency as longer ones do, and what the warm-up has to do with it.

    OMP_NUM_THREADS=1 python benchmarks/short_runs.py train --work WORK --data folder:PATH --weights FILE
    python benchmarks/short_runs.py page --work WORK

WORK is the folder of `benchmarks/equal_latency.py` in which random networks of a band were trained: their mIoU is the
truth. Each is trained again as the beginning of a run of `--total` steps, as trials of a search are, and scored at the
steps `--at`, with a warm-up of a tenth of the total and with a short one; and over whole runs of these lengths, whose
learning rate falls to 0. One result a file. The page gives rank correlations with the truth, and beside them that of
the truth's own seeds.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from nasseg.data import evaluation_batches, open_dataset, training_batches
from nasseg.data.in_memory import InMemory
from nasseg.data.resized import Resized
from nasseg.graph import write_atomically
from nasseg.planning.plan import search_crop
from nasseg.plugins import space as find_space
from nasseg.rank_correlation import kendall, spearman
from nasseg.train.evaluate import evaluate
from nasseg.train.fit import seeded_network
from nasseg.train.recipes import short
from nasseg.train.trainer import Trainer
from nasseg.train.weights.loading import load_pretrained

CPU = torch.device("cpu")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("train", "page"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", help="to train")
    parser.add_argument("--weights", help="to train")
    parser.add_argument("--total", type=int, default=540)
    parser.add_argument("--at", type=int, nargs="+", default=[60, 120, 180])
    parser.add_argument("--short-warmup", type=int, default=10)
    parser.add_argument("--seed", type=int, default=9)
    args = parser.parse_args()
    folder = args.work / "short-runs"
    folder.mkdir(exist_ok=True)
    ways = {
        "beginning": {"total": args.total, "at": args.at},
        "short warm-up": {"total": args.total, "at": args.at, "warmup_steps": args.short_warmup},
        **{f"whole {steps}": {"total": steps, "at": [steps], "warmup_steps": args.short_warmup} for steps in args.at},
    }
    {"train": train, "page": page}[args.command](args, folder, ways)


def train(args, folder, ways):
    """Train every random network in every way, unless it is there or another process is at it."""
    torch.set_num_threads(1)
    plan = json.loads((args.work / "plan.json").read_text())
    settings = plan["settings"]
    dataset, space = open_dataset(args.data), find_space(settings["space"])
    scale = settings["image_scale"]
    splits = [InMemory(Resized(dataset.split(settings[name]), scale)) for name in ("train_split", "test_split")]
    height, width = dataset.split(settings["train_split"])[0].mask.shape
    crop = search_crop((height, width), scale)
    names = [name for name, row in plan["networks"].items() if row["group"] == "random"]
    for way, how in ways.items():
        for name in names:
            result = folder / f"{name}-{way.replace(' ', '-')}.json"
            try:
                with FileLock(result.with_suffix(".lock"), timeout=0):
                    if not result.exists():
                        choice = space.parse(plan["networks"][name]["choice"])
                        architecture = space.architecture(choice, len(dataset.classes))
                        scores = scored(args, settings, splits, crop, architecture, how)
                        write_atomically(result, json.dumps({"name": name, "way": way, "miou": scores}))
                        print(name, way, scores, flush=True)
            except Timeout:
                continue


def scored(args, settings, splits, crop, architecture, how):
    """Train one network in one way, and score it at each of the steps."""
    train_split, test_split = splits
    warmup = {name: value for name, value in how.items() if name == "warmup_steps"}
    made = short(how["total"], crop=crop, batch_size=settings["batch_size"], **warmup)
    network = seeded_network(architecture, args.seed)
    load_pretrained(network, args.weights)
    trainer = Trainer(network, made, how["total"], CPU, args.seed, train_split.ignore_index)
    batches = training_batches(train_split, made.augment, made.batch_size, args.seed)
    scores = {}
    for step in how["at"]:
        trainer.run(batches, step)
        val = (batch for batch, _ in evaluation_batches(test_split, made.batch_size, CPU))
        classes, ignore_index = len(train_split.classes), test_split.ignore_index
        scores[step] = evaluate(trainer.ema_network(), val, classes, ignore_index, CPU).miou
    return scores


def page(args, folder, ways):
    """Print the correlations with the truth."""
    truth = {}
    for file in (args.work / "results").glob("*-random-*.json"):
        run = json.loads(file.read_text())
        truth.setdefault(run["name"], {})[run["seed"]] = run["miou"]
    means = {name: statistics.mean(runs.values()) for name, runs in truth.items()}
    rows = []
    for way in ways:
        found = [json.loads(file.read_text()) for file in folder.glob(f"*-{way.replace(' ', '-')}.json")]
        for step in ways[way]["at"]:
            pairs = [(run["miou"][str(step)], means[run["name"]]) for run in found if run["name"] in means]
            if len(pairs) > 2:
                rows.append(row(f"{way}, step {step}", pairs))
    twice = [tuple(runs[seed] for seed in sorted(runs)[:2]) for runs in truth.values() if len(runs) > 1]
    if len(twice) > 2:
        rows.append(row("the truth's two seeds", twice))
    print(json.dumps({"benchmark": "short_runs", "total": args.total, "rows": rows}))


def row(name, pairs):
    scores, truth = zip(*pairs, strict=True)
    found = {"way": name, "networks": len(pairs), "mean": statistics.mean(scores)}
    found |= {"spearman": spearman(scores, truth), "kendall": kendall(scores, truth)}
    print(
        f"{name:28}{len(pairs):4} networks, mIoU {found['mean']:.3f}, Spearman {found['spearman']:+.2f}, "
        f"Kendall {found['kendall']:+.2f}"
    )
    return found


if __name__ == "__main__":
    main()
