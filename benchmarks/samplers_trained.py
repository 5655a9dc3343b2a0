"""Which sampler finds the best network of a latency band in few trainings, on networks that are really trained.

    OMP_NUM_THREADS=1 python benchmarks/samplers_trained.py train --work WORK --data folder:PATH --weights FILE \
        --latency TABLE.json
    python benchmarks/samplers_trained.py page --work WORK

The band is [0.92, 1] of `--share` of DeepLabV3+'s latency on MobileNetV2 by the table. Each search begins with the
handcrafted heads, scaled to it, and proposes `--networks` more. A network's score is its mIoU on `--val-split` after
the first `--steps` of a run of `--total` steps by the `short` recipe, as at the first rung of a search. "params" learns
nothing: every proposal is the one with the most parameters of ten draws.

A network is trained once, whoever proposes it, and its score is one file; a proposal depends on the scores alone. So
`train` goes on where it was stopped, in any number of processes, each at a search of its own.
"""

import argparse
import json
import statistics
from pathlib import Path
from random import Random

import torch
from filelock import FileLock, Timeout

from nasseg import plugins
from nasseg.cost.latency_table import LatencyTable
from nasseg.data import evaluation_batches, open_dataset, training_batches
from nasseg.data.in_memory import InMemory
from nasseg.data.resized import Resized
from nasseg.graph import write_atomically
from nasseg.jobs.pricing import Pricing
from nasseg.planning.candidates import Trial
from nasseg.planning.fitting import Fitting
from nasseg.planning.job import Candidate
from nasseg.planning.limits import Limits
from nasseg.planning.plan import search_crop
from nasseg.planning.samplers import SAMPLERS
from nasseg.planning.samplers.base import Region
from nasseg.planning.samplers.large_start import LargeStart
from nasseg.planning.samplers.uniform import RandomSampler
from nasseg.train.evaluate import evaluate
from nasseg.train.fit import seeded_network
from nasseg.train.recipes import short
from nasseg.train.trainer import Trainer
from nasseg.train.weights.loading import load_pretrained

CPU = torch.device("cpu")
METHODS = ("gp", "random", "tpe", "evolution", "params")
COUNTS = (10, 20, 30, 60)
TRIES_OF_SAMPLER = 20
TRAINING_SEED = 0
BATCH_SIZE = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    train_parser, page_parser = commands.add_parser("train"), commands.add_parser("page")
    for command in (train_parser, page_parser):
        command.add_argument("--work", type=Path, required=True)
    train_parser.add_argument("--space", default="encoder_decoder")
    train_parser.add_argument("--data", required=True)
    train_parser.add_argument("--train-split", default="search-train")
    train_parser.add_argument("--val-split", default="search-val")
    train_parser.add_argument("--weights", required=True)
    train_parser.add_argument("--latency", required=True, help="table for images of the scaled size")
    train_parser.add_argument("--image-scale", type=float, default=0.5)
    train_parser.add_argument("--share", type=float, default=0.25)
    train_parser.add_argument("--networks", type=int, default=30, help="proposals of each search")
    train_parser.add_argument("--steps", type=int, default=120)
    train_parser.add_argument("--total", type=int, default=540)
    train_parser.add_argument("--seeds", type=int, default=2, help="searches by each sampler")
    train_parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    args = parser.parse_args()
    train(args) if args.command == "train" else page(args)


def train(args):
    """Run the searches that have no result and that no other process runs."""
    torch.set_num_threads(1)
    (args.work / "trained").mkdir(parents=True, exist_ok=True)
    band = Band(args)
    for seed in range(args.seeds):
        for method in args.methods:
            file = args.work / f"{method}-{seed}.json"
            try:
                with FileLock(file.with_suffix(".lock"), timeout=0):
                    if not file.exists():
                        tried = band.searched(method, seed)
                        settings = {name: getattr(args, name) for name in ("share", "steps", "total")}
                        found = {"method": method, "seed": seed, **settings, "networks": tried}
                        write_atomically(file, json.dumps(found, indent=1))
            except Timeout:
                continue


class MostParameters:
    """A sampler that goes on as `LargeStart` begins."""

    def __init__(self, region):
        self._start = LargeStart(RandomSampler(region), region)

    def propose(self, history, rng):
        return self._start.propose([], rng)


class Band:
    """The networks of a space that take about as long, and their scores as far as they were trained."""

    def __init__(self, args):
        self.args, self.dataset = args, open_dataset(args.data)
        self.space = plugins.space(args.space, named_by_user=args.space)
        table, classes = LatencyTable.load(args.latency), len(self.dataset.classes)
        full_ms = table.latency_ms(plugins.baseline("deeplabv3plus-mobilenetv2", classes))
        self.pricing = Pricing(table.conditions.size, Limits(latency_ms=args.share * full_ms), table)
        self.fitting = Fitting(self.space, lambda choice: self.pricing.constraints(self.built(choice)))
        self.region = Region.of(self.fitting, self.params)
        splits = (args.train_split, args.val_split)
        self.splits = [InMemory(Resized(self.dataset.split(name), args.image_scale)) for name in splits]
        self.crop = search_crop(self.dataset.split(args.train_split).typical_size(), args.image_scale)

    def built(self, choice):
        return self.space.architecture(choice, len(self.dataset.classes))

    def params(self, choice):
        return self.pricing.costs(self.built(choice)).params

    def searched(self, method, seed):
        """Search once; returns what was tried, in its order, the handcrafted heads first."""
        sampler = MostParameters(self.region) if method == "params" else SAMPLERS[method](self.region)
        history = []
        for label, choice in self.fitting.references().items():
            history.append(self.trial(choice, label, len(history)))
        references = len(history)
        while len(history) < references + self.args.networks:
            choice = self.proposed(sampler, history, seed)
            history.append(self.trial(choice, None, len(history)))
            best = max(trial.values[0] for trial in history[references:])
            print(f"{method} {seed}: {len(history) - references} networks, the best {best:.4f}", flush=True)
        return [
            {
                "key": trial.key,
                "label": trial.candidate.label,
                "miou": trial.values[0],
                "params": self.params(trial.choice),
            }
            for trial in history
        ]

    def proposed(self, sampler, history, seed):
        """Return a network in the band that was not tried, from the sampler unless it repeats itself."""
        known = {trial.key for trial in history}
        for attempt in range(TRIES_OF_SAMPLER):
            fitted = self.fitting.fit(sampler.propose(history, Random(f"{seed}/{len(history)}/{attempt}")))
            if fitted.in_band and self.built(fitted.choice).key not in known:
                return fitted.choice
        return self.region.draw(Random(f"{seed}/{len(history)}"))

    def trial(self, choice, label, number):
        architecture = self.built(choice)
        candidate = Candidate(key=architecture.key, choice=choice.model_dump(mode="json"), label=label)
        return Trial(candidate, choice, number, level=1, values=(self.score(architecture),))

    def score(self, architecture):
        """Return the network's mIoU, trained now unless it is known."""
        file = self.args.work / "trained" / f"{architecture.key}.json"
        with FileLock(file.with_suffix(".lock")):
            if not file.exists():
                write_atomically(file, json.dumps({"miou": self.trained(architecture)}))
        return json.loads(file.read_text())["miou"]

    def trained(self, architecture):
        train_split, val_split = self.splits
        made = short(self.args.total, crop=self.crop, batch_size=BATCH_SIZE)
        network = seeded_network(architecture, TRAINING_SEED)
        load_pretrained(network, self.args.weights)
        trainer = Trainer(network, made, self.args.total, CPU, TRAINING_SEED, train_split.ignore_index)
        trainer.run(training_batches(train_split, made.augment, BATCH_SIZE, TRAINING_SEED), self.args.steps)
        val = (batch for batch, _ in evaluation_batches(val_split, BATCH_SIZE, CPU))
        return evaluate(trainer.ema_network(), val, len(val_split.classes), val_split.ignore_index, CPU).miou or 0.0


def page(args):
    """Print, for each sampler, the best found after ever more networks, the finalists' mean, and how good all were."""
    found = [json.loads(file.read_text()) for file in sorted(args.work.glob("*-*.json"))]
    heads = max(network["miou"] for network in found[0]["networks"] if network["label"])
    counts = [count for count in COUNTS if count <= len(found[0]["networks"])]
    print(f"the best handcrafted head: {heads:.4f}")
    heading = [*(f"best of {count}" for count in counts), "best three", "all", "last ten", "above the best head"]
    print(f"{'':12}{'searches':>9}" + "".join(f"{name:>21}" for name in heading))
    rows = {}
    for method in (method for method in METHODS if any(search["method"] == method for search in found)):
        rows[method] = dict.fromkeys(heading, ())
        for search in (search for search in found if search["method"] == method):
            scores = [network["miou"] for network in search["networks"] if not network["label"]]
            values = [*(max(scores[:count]) for count in counts), statistics.mean(sorted(scores)[-3:])]
            values += [statistics.mean(scores), statistics.mean(scores[-10:]), sum(score > heads for score in scores)]
            rows[method] = {name: (*rows[method][name], value) for name, value in zip(heading, values, strict=True)}
        shown = ["".join(f"{', '.join(f'{v:.4g}' for v in values):>21}") for values in rows[method].values()]
        print(f"{method:12}{len(rows[method]['all']):9}{''.join(shown)}")
    print(json.dumps({"benchmark": "samplers_trained", "best_head": heads, "methods": rows}))


if __name__ == "__main__":
    main()
