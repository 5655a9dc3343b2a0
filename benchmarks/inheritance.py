"""The gain of starting trials from the weights of earlier ones, and whether the ranking stays right.

    python benchmarks/inheritance.py --space auto_deeplab:layers=4,blocks=2,filters=4,head_filters=32 \
        --data streets:size=96x192,train=48,val=16,test=4 --steps 20 --candidates 14

Candidates, every second one a neighbour of an earlier one as in a search, are trained one after the other for `steps`
steps, in four ways:

    from scratch
    inherited         as searches do: weights known by a node's place (name, operator, input channels), the first stay
    latest weights    the same, but the latest stay
    equal nodes       weights known by a node's exact hash: its operator and everything before it

The truth is a longer run from scratch with other seeds. The table gives mean mIoU at equal steps; Spearman's
correlation of the scores with the truth, and with the order of the trials (if it exceeds the truth's own, later trials
look better because the store was fuller); the share of weights that were inherited; seconds per trial.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from nasseg.data import open_dataset
from nasseg.jobs.worker import Worker
from nasseg.planning.config import SearchConfig
from nasseg.planning.job import Job
from nasseg.planning.machine import Hardware, Speed
from nasseg.planning.options import SearchOptions
from nasseg.planning.plan import derive_plan
from nasseg.rank_correlation import spearman
from nasseg.train.weights.inheritance import WeightStore


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="auto_deeplab:layers=4,blocks=2,filters=4,head_filters=32,decoder=false")
    parser.add_argument("--data", default="streets:size=96x192,train=48,val=16,test=4")
    parser.add_argument("--train-split", default="train")
    parser.add_argument("--val-split", default="val")
    parser.add_argument("--image-scale", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--longer", type=int, default=3, help="length of the truth, in --steps")
    parser.add_argument("--truth-seeds", type=int, default=1)
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    stores = {"from scratch": None, "inherited": Counting, "latest weights": Latest, "equal nodes": EqualNodes}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        workers = {name: make_worker(args, work / name, store) for name, store in stores.items()}
        candidates = sequence(workers["from scratch"], args.candidates, random.Random(args.seed))
        results = {name: [trial(w, c, args.seed, args.steps) for c in candidates] for name, w in workers.items()}
        seeds = range(args.seed + 1, args.seed + 1 + args.truth_seeds)
        longest = args.steps * args.longer
        truths = [[trial(workers["from scratch"], c, seed, longest) for c in candidates] for seed in seeds]
    truth = [statistics.mean(t["miou"] for t in of_one) for of_one in zip(*truths, strict=True)]

    rows = {name: summary(trials, truth) for name, trials in results.items()}
    longer = f"{longest} steps"
    rows[longer] = summary([{**t, "miou": m} for t, m in zip(truths[0], truth, strict=True)], truth)
    print(f"\n{args.space} on {args.data}, {args.candidates} candidates, {args.steps} steps, {args.device}")
    titles = ("trained", "mIoU", "ρ truth", "ρ order", "inherited", "s")
    print("{:16}{:>8}{:>9}{:>9}{:>11}{:>8}".format(*titles))
    for name, row in rows.items():
        print(
            f"{name:16}{row['miou']:8.3f}{shown(row['spearman_truth'])}"
            f"{shown(row['spearman_order'])}{row['inherited_share']:10.0%}{row['seconds']:9.2f}"
        )
    found = {"summary": rows, "trials": results, "truth_miou": truth}
    print(json.dumps({"benchmark": "inheritance", **vars(args), "torch": torch.__version__, **found}))


class Counting(WeightStore):
    """A store that counts the weights it gives."""

    share = 0.0

    def load_into(self, network):
        found = super().load_into(network)
        weights = {node.name: weight_count(network, node.name) for node in network.architecture.nodes}
        self.share = sum(weights[name] for name in found) / sum(weights.values())
        return found


class Latest(Counting):
    def save(self, network):
        for file, _ in self.files(network).values():
            file.unlink(missing_ok=True)
        super().save(network)


class EqualNodes(Counting):
    def keys(self, architecture):
        """Number the equal nodes of a network, as with equal weights they would stay equal."""
        keys, seen = {}, Counter()
        for node in architecture.ordered:
            key = architecture.node_keys[node.name]
            keys[node.name] = f"{key}-{seen[key]}"
            seen[key] += 1
        return keys


def weight_count(network, name):
    return sum(parameter.numel() for parameter in network.get_submodule(name).parameters())


def make_worker(args, folder, store):
    """Make a search's worker, with the given store or none."""
    folder.mkdir()
    dataset = open_dataset(args.data)
    train, val = dataset.split(args.train_split), dataset.split(args.val_split)
    speed = Speed(image_scale=1, full_step_seconds=1, proxy_step_seconds=1, forward_seconds=1)
    hardware = Hardware.of(torch.device(args.device), args.threads, concurrency=1)
    options = SearchOptions(
        space=args.space,
        data=args.data,
        train_split=args.train_split,
        val_split=args.val_split,
        budget=f"{args.candidates}trials",
        device=args.device,
        inherit=False,
        image_scale=args.image_scale,
        rungs=(args.steps, args.steps * args.longer),
    )
    plan = derive_plan(
        options,
        speed,
        hardware,
        size=tuple(val[0].mask.shape),
        train_images=len(train),
        val_images=len(val),
        references=2,
    )
    worker = Worker.open(SearchConfig.of(options, plan), folder)
    if worker.context.problem.space.shared_stage is not None:
        raise SystemExit(f"{args.space} has a shared stage, so its trials inherit nothing; give another --space")
    worker.proxy.weights = store and store(folder / "weights")
    return worker


def sequence(worker, count, rng):
    """Draw candidates as a search proposes them: random ones, each followed by a neighbour of an earlier one."""
    problem, choices = worker.context.problem, []
    space = problem.space
    for index in range(count):
        near = index % 2 and list(space.neighbours(rng.choice(choices)))
        choices.append(space.canonical(rng.choice(near) if near else space.sample(rng)))
    return [problem.candidate(choice) for choice in choices]


def trial(worker, candidate, seed, steps):
    start = time.perf_counter()
    job = Job(number=0, task="proxy", candidates=(candidate,), seed=seed, start_step=0, stop_step=steps)
    (outcome,) = worker.run(job).outcomes
    seconds, store = time.perf_counter() - start, worker.proxy.weights
    return {"miou": outcome.miou or 0.0, "seconds": seconds, "inherited_share": store.share if store else 0.0}


def summary(trials, truth):
    miou = [trial["miou"] for trial in trials]
    return {
        "miou": statistics.mean(miou),
        "spearman_truth": spearman(miou, truth),
        "spearman_order": spearman(miou, range(len(miou))),
        "inherited_share": statistics.mean(trial["inherited_share"] for trial in trials),
        "seconds": statistics.mean(trial["seconds"] for trial in trials),
    }


def shown(correlation):
    return f"{'–':>9}" if correlation is None else f"{correlation:9.2f}"


if __name__ == "__main__":
    main()
