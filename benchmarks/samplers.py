"""Which sampler finds the best network of a latency band in few trainings, on a table of 2507 trained networks.

    python benchmarks/samplers.py --table nas_bench_mr.json

The table holds each network's mIoU on Cityscapes, FLOPs, parameters and an encoding of 27 integers (Ding et al.,
Learning Versatile Neural Architectures by Propagating Network Codes, ICLR 2022). A band of FLOPs stands for one of
latency. Regret is the best mIoU in the band less the best found, in points.

The first ten networks are the same for all methods of a start: drawn uniformly from the band ("uniform"), or each the
one with the most parameters of ten drawn ("large", `LargeStart`). Then the method goes on; each is taken once:

- most samplers propose an encoding, and the nearest untried network in the band is taken, which stands for fitting a
  proposal into the band;
- "gp" weighs untried networks of the band, so that its proposals are taken as they are;
- "params" learns nothing: the one with the most parameters of ten drawn, to the end.

A band has 82 to 229 networks, so 40 trainings see a good part of it, which flatters what goes by parameters alone.
The generators depend on repetition and trial only, so methods are compared in pairs.
"""

import argparse
import json
import math
import platform
import time
import warnings
from pathlib import Path
from random import Random

import numpy as np
import optuna

from nasseg.planning.candidates import Trial
from nasseg.planning.job import Candidate
from nasseg.planning.samplers import SAMPLERS
from nasseg.planning.samplers.base import Region
from nasseg.planning.samplers.large_start import STARTS, LargeStart
from nasseg.space import Choice, Space

BANDS_GFLOPS = ((0.3, 0.5), (0.5, 1.0), (1.5, 2.0), (2.5, 3.0), (3.5, 4.0))
BUDGETS = (10, 20, 40)
METHODS = ("random", "neighbourhood", "evolution", "tpe", "gp", "params")


class Encoding(Choice):
    values: tuple[int, ...]


class Encodings(Space[Encoding]):
    """All encodings, of which few have a network in the table; samples are those in the band."""

    options: tuple[tuple[int, ...], ...]
    members: tuple[tuple[int, ...], ...]

    def decisions(self, decide):
        for place, options in enumerate(self.options):
            decide.ordered(f"values.{place}", options)

    def sample(self, rng):
        return Encoding(values=rng.choice(self.members))

    def references(self):
        return {"first": Encoding(values=self.members[0])}

    def architecture(self, choice, classes):
        raise NotImplementedError


class Band:
    """The networks of the table between two FLOPs; `at` is each one's place in the unit cube."""

    def __init__(self, path, low, high):
        document = json.loads(path.read_text())
        flops, archs = np.array(document["flops_G"]), np.array(document["archs"])
        inside = (low <= flops) & (flops <= high)
        self.miou = np.array(document["metrics"]["seg/mIoU"])[inside]
        self.params = np.array(document["params_M"])[inside]
        columns = [np.unique(column, return_inverse=True) for column in archs.T]
        levels = np.stack([position for _, position in columns], axis=1)
        self.at = levels[inside] / levels.max(axis=0)
        self.options = tuple(tuple(options.tolist()) for options, _ in columns)
        self.choices = [Encoding(values=arch) for arch in archs[inside].tolist()]
        self.space = Encodings(options=self.options, members=tuple(choice.values for choice in self.choices))

    def region(self, untried):
        """Return the untried networks as the region of a sampler: a point is taken to the nearest."""
        params = dict(zip(self.choices, self.params, strict=True))
        return Region(
            self.space,
            draw=lambda rng: self.choices[rng.choice(untried)],
            fit=lambda choice: self.choices[self.nearest(choice, untried)],
            params=params.__getitem__,
        )

    def nearest(self, choice, untried):
        pairs = zip(choice.values, self.options, strict=True)
        wanted = [options.index(value) / (len(options) - 1) for value, options in pairs]
        at = self.at[untried]
        return untried[int(((at - wanted) ** 2).sum(axis=1).argmin())]


def trial(band, network, number):
    choice = band.choices[network]
    candidate = Candidate(key=str(network), choice=choice.model_dump(mode="json"))
    return Trial(candidate, choice, number, level=1, values=(float(band.miou[network]),), final=True)


def search(band, method, start, repetition):
    """Search once; returns the networks in the order in which they were tried."""
    tried, untried = [], list(range(len(band.miou)))
    while len(tried) < max(BUDGETS):
        rng, starting = Random(f"{repetition}/{len(tried)}"), len(tried) < STARTS
        region, history = band.region(untried), [trial(band, network, number) for number, network in enumerate(tried)]
        if (start == "large" and starting) or (method == "params" and not starting):
            choice = LargeStart(SAMPLERS["random"](region), region).propose([], rng)
        elif starting or method == "random":
            choice = region.draw(rng)
        else:
            choice = SAMPLERS[method](region).propose(history, rng)
        network = band.nearest(choice, untried)
        tried.append(network)
        untried.remove(network)
    return tried


def regrets(band, tried):
    return [band.miou.max() - band.miou[tried[:budget]].max() for budget in BUDGETS]


def mean_and_half(values):
    """Return the mean over the first axis, and half of its 95 % interval."""
    return values.mean(axis=0), 1.96 * values.std(axis=0, ddof=1) / math.sqrt(len(values))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--starts", nargs="+", default=["uniform", "large"], choices=["uniform", "large"])
    args = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    bands = [Band(args.table, low, high) for low, high in BANDS_GFLOPS]

    sizes = ", ".join(f"{low:g}–{high:g}: {len(b.miou)}" for (low, high), b in zip(BANDS_GFLOPS, bands, strict=True))
    print(f"networks in the bands (GFLOPs): {sizes}; {args.repetitions} repetitions")
    print(
        f"regret in mIoU points after {', '.join(map(str, BUDGETS))} trainings; mean of the bands ± 95 %, then by band"
    )
    rows = []
    for method in args.methods:
        for start in args.starts:
            begin = time.process_time()
            runs = range(args.repetitions)
            found = np.array([[regrets(b, search(b, method, start, run)) for b in bands] for run in runs])
            seconds = time.process_time() - begin
            centre, half = mean_and_half(found.mean(axis=1))
            by_band, _ = mean_and_half(found)
            overall = "  ".join(f"{c:.2f} ± {h:.2f}" for c, h in zip(centre, half, strict=True))
            shown = " | ".join(" ".join(f"{value:.2f}" for value in one) for one in by_band)
            print(f"{method:14}{start:9}{overall}  | {shown}   {seconds:.0f} s", flush=True)
            rows.append({"method": method, "start": start, "seconds": seconds, "regret": found.tolist()})
    setting = {"bands_gflops": BANDS_GFLOPS, "budgets": BUDGETS, "starts": STARTS, "repetitions": args.repetitions}
    machine = {"device": "cpu", "machine": platform.machine(), "threads": 1}
    versions = {"optuna": optuna.__version__, "python": platform.python_version()}
    print(json.dumps({**setting, **machine, "versions": versions, "results": rows}))


if __name__ == "__main__":
    main()
