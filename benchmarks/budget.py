"""Whether searches keep their budget: plans carried out by simulated workers, from minutes to 200 GPU-hours.

    python benchmarks/budget.py
    python benchmarks/budget.py --slower 3.5

The real planner hands out jobs to workers that take as long as the speed says, `--slower` times that, with `--noise`.
Candidates are proposed at random; what a proposal takes is not counted (`driver.py` measures it). Each line has the
candidates tried, those that the plan expected, the share of the workers' time by kind of job, what they idled, and the
end in per cent of the budget.
"""

import argparse
import itertools
import json
import random
import time

from nasseg.jobs.runners.simulated import Pace, simulate
from nasseg.planning.budget import Budget
from nasseg.planning.fitting import Fitting
from nasseg.planning.job import Candidate
from nasseg.planning.machine import Hardware, JobTimes, Speed
from nasseg.planning.options import SearchOptions
from nasseg.planning.plan import VIEWS, derive_plan
from nasseg.planning.planner import Planner
from nasseg.planning.samplers import SAMPLERS
from nasseg.planning.samplers.base import Region
from nasseg.space import Choice, Decide, Space

DATA = {  # height, width, training and validation images; seconds of a full step, a proxy step and a forward pass
    "small": ((160, 320), 256, 64, (0.4, 0.02, 0.1)),
    "cityscapes": ((1024, 2048), 2975, 500, (0.12, 0.01, 0.03)),
}
BUDGETS = ("3min", "10min", "1h", "8h", "25h")
WORKERS = (1, 2, 4, 8, 16, 64, 256)


class Point(Choice):
    digits: tuple[int, ...]


class Numbers(Space[Point]):
    """A large space whose points cost nothing to make."""

    references_count: int = 2
    shared: bool = True

    @property
    def shared_stage(self):
        return "backbone" if self.shared else None

    def decisions(self, decide: Decide) -> None:
        for place in range(9):
            decide.ordered(f"digits.{place}", range(10))

    def references(self):
        return {f"reference{number}": Point(digits=(number,) * 9) for number in range(self.references_count)}

    def architecture(self, choice, classes):
        raise NotImplementedError


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--space", nargs="+", default=["shared", "whole"], choices=["shared", "whole"])
    parser.add_argument("--budgets", nargs="+", default=list(BUDGETS))
    parser.add_argument("--workers", nargs="+", type=int, default=list(WORKERS))
    parser.add_argument("--slower", type=float, default=1.0)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--failures", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0, help="of the deviations and failures")
    args = parser.parse_args()
    rows = []
    print(
        f"{'':30}{'tried':>7}{'plan':>7}{'final':>7}{'prepare':>9}{'storing':>9}{'proxy':>7}{'full':>7}{'idle':>7}{'end':>7}{'took':>8}"
    )
    for data, space, budget, workers in itertools.product(args.data, args.space, args.budgets, args.workers):
        row = searched(data, space, budget, workers, args)
        rows.append({"data": data, "space": space, "budget": budget, "workers": workers, **row})
        print(
            f"{data:12}{space:8}{budget:6}{workers:4}{row['tried']:7}{row['expected']:7}{row['finalists']:7}"
            + "".join(f"{100 * row[name]:{width}.1f}%" for name, width in SHARES.items())
            + f"{row['took']:6.1f} s",
            flush=True,
        )
    print(json.dumps({"benchmark": "budget", "slower": args.slower, "noise": args.noise, "rows": rows}))


SHARES = {"prepare": 8, "storing": 8, "proxy": 6, "full": 6, "idle": 6, "end": 6}


def searched(data, space_name, budget, workers, args):
    """Search once, and return what it did."""
    size, train_images, val_images, (full, proxy, forward) = DATA[data]
    whole = space_name == "whole"
    space = Numbers(shared=not whole, references_count=7 if whole else 2)
    speed = Speed(
        image_scale=0.5, full_step_seconds=full, proxy_step_seconds=None if whole else proxy, forward_seconds=forward
    )
    hardware = Hardware(device="cpu", cores=workers, gpus=0, workers=workers, threads=1)
    options = SearchOptions(budget=budget)
    references = len(space.references())
    plan = derive_plan(
        options, speed, hardware, size=size, train_images=train_images, val_images=val_images, references=references
    )
    total = Budget.parse(budget).wall_seconds(workers, 0)
    planner = Planner(
        space,
        SAMPLERS["random"](Region.of(Fitting(space, lambda choice: {}), lambda choice: 1.0)),
        plan,
        total_seconds=total,
        describe=lambda choice: Candidate(key="".join(map(str, choice.digits)), choice={}),
        values=lambda outcome: (outcome.miou,),
        score=lambda outcome: outcome.miou,
    )
    at, batch = speed.at(plan.image_scale), plan.full_recipe.batch_size
    stored = 0.0 if whole else (VIEWS * train_images + val_images) / batch
    times = JobTimes.of(at, val_images / batch, stored).longer(speed.contention if workers > 1 else 1.0)
    pace = Pace(times, args.slower, args.noise, failures=args.failures)
    start = time.perf_counter()
    found = simulate(planner, pace, workers, total, score, args.seed)
    all_seconds = sum(found.seconds.values())
    return {
        "tried": sum(bool(trial.proxy or trial.full) for trial in planner.trials),
        "expected": plan.expected_candidates,
        "finalists": sum(bool(trial.full) for trial in planner.trials if trial.candidate.label is None),
        **{name: found.seconds[name] / all_seconds for name in ("prepare", "storing", "proxy", "full")},
        "idle": found.idle_share,
        "end": found.end_seconds / total,
        "took": time.perf_counter() - start,
    }


def score(candidate, step, seed):
    """Rise with the step and differ by candidate, with noise that shrinks with the steps."""
    quality = random.Random(candidate.key).uniform(0.3, 0.5)
    noise = random.Random(f"{candidate.key} {step} {seed}").gauss(0, 0.02)
    return max(0.01, quality * step / (step + 100) + noise)


if __name__ == "__main__":
    main()
