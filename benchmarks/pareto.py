"""The gain of Pareto early stopping: hypervolume against budget, on a table of 2507 trained networks.

    python benchmarks/pareto.py --table nas_bench_mr.json --plot pareto.png

The table holds each network's mIoU on Cityscapes, the same on images of a quarter of the side (the low rung), FLOPs and
an encoding of 27 integers (Ding et al., Learning Versatile Neural Architectures by Propagating Network Codes, ICLR
2022). It is a sample of a larger space, so it is the pool that all draw from, each network at most once. Random search
draws uniformly, and so do the others until Optuna has seen enough. Then NSGA-II and TPE propose an encoding: the
nearest untried network is taken and shown to them.

The objectives are mIoU and the logarithm of FLOPs. The budget counts full runs. Without early stopping all networks are
trained in full. With it, each is first trained at the low rung, for `--low-cost` of a full run (1/16 is its share of
pixels), and promoted by `Rung`; a promotion costs a full run, as the table's full runs start from scratch. Optuna is
shown a network trained in full as COMPLETE, any other as PRUNED, without intermediate values, which it refuses for
several objectives.

Hypervolume is that of the networks trained in full, as a share of the whole table's. The reference point is the table's
worst mIoU and FLOPs; `--reference-miou 60` leaves out what the tiniest networks add, which changes the ranking. The
last column is the budget at which the mean reaches random search's final value.
"""

import argparse
import itertools
import json
import math
import random
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import IntDistribution
from optuna.samplers import NSGAIISampler, TPESampler
from optuna.trial import TrialState, create_trial

from nasseg.pareto import hypervolume
from nasseg.planning.halving import Rung
from nasseg.planning.samplers.optuna import View

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)

COMPLETE, PRUNED = TrialState.COMPLETE, TrialState.PRUNED
SAMPLERS = {
    "random": (None, math.inf, ()),
    "nsga2": (lambda seed: NSGAIISampler(population_size=16, seed=seed), 16, (COMPLETE,)),
    "tpe": (lambda seed: TPESampler(multivariate=True, group=True, seed=seed), 10, (COMPLETE, PRUNED)),
}
"""How to make Optuna's sampler, and after how many trials in which states it stops drawing uniformly."""


class Table:
    """Objectives of each network, both to be maximised, and its encoding as levels 0 to `highest`."""

    def __init__(self, path, reference_miou):
        document = json.loads(Path(path).read_text())
        self.cost = [math.log10(flops) for flops in document["flops_G"]]
        self.full, self.low = (
            [(miou, -cost) for miou, cost in zip(document["metrics"][name], self.cost, strict=True)]
            for name in ("seg/mIoU", "seg-4x/mIoU")
        )
        columns = [np.unique(column, return_inverse=True) for column in np.array(document["archs"]).T]
        self.levels = np.stack([levels for _, levels in columns], axis=1)
        self.highest = self.levels.max(axis=0)
        self.distributions = {f"x{i}": IntDistribution(0, int(high)) for i, high in enumerate(self.highest)}
        worst = min(miou for miou, _ in self.full)
        self.reference = max(self.cost), worst if reference_miou is None else reference_miou
        self.best = self.area(range(len(self.full)))

    def area(self, networks):
        return hypervolume([(self.cost[i], self.full[i][0]) for i in networks], self.reference)


class Search:
    """One search with one sampler and one seed."""

    def __init__(self, table, sampler, seed):
        self.table, self.rng = table, random.Random(seed)
        self.make_sampler, self.startup, self.states = SAMPLERS[sampler]
        self.untried = np.ones(len(table.full), dtype=bool)
        self.trials = {}

    def propose(self):
        """Choose an untried network, which is then tried."""
        if sum(trial.state in self.states for trial in self.trials.values()) < self.startup:
            network = self.rng.choice(np.flatnonzero(self.untried).tolist())
        else:
            sampler, view = self.make_sampler(self.rng.getrandbits(32)), View(list(self.trials.values()))
            study = optuna.create_study(storage=view, sampler=sampler, directions=["maximize", "maximize"])
            proposed = list(study.ask(self.table.distributions).params.values())
            distance = (((self.table.levels - proposed) / self.table.highest) ** 2).sum(axis=1)
            network = int(np.where(self.untried, distance, np.inf).argmin())
        self.untried[network] = False
        return network

    def show(self, network, is_full):
        """Let the sampler know how far a network was trained."""
        self.trials[network] = create_trial(
            state=COMPLETE if is_full else PRUNED,
            values=self.table.full[network] if is_full else None,
            params=dict(zip(self.table.distributions, self.table.levels[network].tolist(), strict=True)),
            distributions=self.table.distributions,
            system_attrs={"NSGAIISampler:generation": 0},
        )

    def run(self, budget, low_cost, reduction):
        """Search until the budget is spent; returns [(budget spent, network)] of the networks trained in full."""
        rung, spent, trained = Rung(reduction), 0.0, []
        while True:
            promotable = rung.promotable(1) if low_cost else [self.propose()]
            if promotable:
                network, cost = promotable[0], 1
            else:
                network, cost = self.propose(), low_cost
            spent += cost
            if spent > budget:
                return trained
            if cost == 1:
                rung.promote(network)
                trained.append((spent, network))
            else:
                rung.finish(network, self.table.low[network])
            self.show(network, is_full=cost == 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--budgets", type=int, nargs="+", default=[10, 25, 50, 100])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--low-cost", type=float, default=1 / 16)
    parser.add_argument("--reduction", type=int, default=3)
    parser.add_argument("--reference-miou", type=float, help="in percent; the table's worst by default")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()

    table, last = Table(args.table, args.reference_miou), max(args.budgets)
    print(f"hypervolume, % of the table's; mean ± standard error of {args.seeds} seeds")
    titles = [f"{budget} runs" for budget in args.budgets]
    print(f"{'sampler':10}{'stopping':10}" + "".join(f"{title:>16}" for title in titles) + f"{'= random':>12}")
    rows = []
    for name, low_cost in itertools.product(SAMPLERS, (0, args.low_cost)):
        start, curves = time.perf_counter(), []
        for seed in range(args.seeds):
            trained = Search(table, name, seed).run(last, low_cost, args.reduction)
            reached = [[network for at, network in trained if at <= spent] for spent in range(1, last + 1)]
            curves.append([100 * table.area(networks) / table.best for networks in reached])
        points = list(zip(*curves, strict=True))
        row = {
            "sampler": name,
            "early_stopping": bool(low_cost),
            "seconds": time.perf_counter() - start,
            "mean": [round(statistics.mean(point), 3) for point in points],
            "standard_error": [round(statistics.stdev(point) / math.sqrt(args.seeds), 3) for point in points],
        }
        rows.append(row)
        equals_random = next((i for i, mean in enumerate(row["mean"], start=1) if mean >= rows[0]["mean"][-1]), "-")
        cells = [f"{row['mean'][budget - 1]:.2f} ± {row['standard_error'][budget - 1]:.2f}" for budget in args.budgets]
        stopping = "pareto" if low_cost else "none"
        print(f"{name:10}{stopping:10}" + "".join(f"{cell:>16}" for cell in cells) + f"{equals_random:>12}", flush=True)
    if args.plot:
        plot(rows, args.plot)
    setting = {"seeds": args.seeds, "low_cost": args.low_cost, "reduction": args.reduction}
    reference = {"flops_g": 10 ** table.reference[0], "miou": table.reference[1]}
    print(json.dumps({"benchmark": "pareto", **setting, "reference_point": reference, "rows": rows}))


def plot(rows, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    colours = {name: f"C{i}" for i, name in enumerate(SAMPLERS)}
    for row in rows:
        mean, error = np.array(row["mean"]), np.array(row["standard_error"])
        budgets, colour = np.arange(1, len(mean) + 1), colours[row["sampler"]]
        label = row["sampler"] + (", Pareto early stopping" if row["early_stopping"] else "")
        axes.plot(budgets, mean, "-" if row["early_stopping"] else "--", color=colour, label=label)
        axes.fill_between(budgets, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
    axes.set(xscale="log", xlabel="budget (full runs)", ylabel="hypervolume (% of the table's)")
    axes.set_ylim(bottom=min(row["mean"][min(9, len(row["mean"]) - 1)] for row in rows) - 2, top=100)
    axes.set_xlim(5, len(rows[0]["mean"]))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
