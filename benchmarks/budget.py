"""Whether searches keep their budget: plans carried out by simulated workers, from minutes to 200 GPU-hours.

    python benchmarks/budget.py
    python benchmarks/budget.py --slower 3.5

The real planner hands out jobs to workers that take as long as the speed says, `--slower` times that, with `--noise`.
Candidates are proposed at random; what a proposal takes is not counted (`driver.py` measures it). Each line has means
over `--seeds` searches: the candidates that the plan expected and those tried, with the fewest and the most, the
finalists trained and the searches without any, the share of the workers' time by kind of job, and what they idled; and
the earliest and the latest end in per cent of the budget.
"""

import argparse
import itertools
import json
import random
import time
from statistics import mean

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
    parser.add_argument("--seeds", type=int, default=8, help="searches that differ in deviations and failures")
    args = parser.parse_args()
    rows = []
    heading = ("plan", "tried", "fewest", "most", "final", "none", *SHARES, "idle", "end: first", "last", "took, s")
    print(f"{'':28}" + "".join(f"{name:>{WIDTH}}" for name in heading))
    for data, space, budget, workers in itertools.product(args.data, args.space, args.budgets, args.workers):
        searches = [searched(data, space, budget, workers, args, seed) for seed in range(args.seeds)]
        rows.append({"data": data, "space": space, "budget": budget, "workers": workers, "searches": searches})
        of = {name: [search[name] for search in searches] for name in searches[0]}
        texts = [f"{of['expected'][0]}", f"{mean(of['tried']):.1f}", f"{min(of['tried'])}", f"{max(of['tried'])}"]
        texts += [f"{mean(of['finalists']):.1f}", f"{of['finalists'].count(0)}"]
        texts += [f"{mean(of[name]):.1%}" for name in (*SHARES, "idle")]
        texts += [f"{min(of['end']):.1%}", f"{max(of['end']):.1%}", f"{mean(of['took']):.1f}"]
        print(f"{data:12}{space:8}{budget:5}{workers:3}" + "".join(f"{text:>{WIDTH}}" for text in texts), flush=True)
    print(json.dumps({"benchmark": "budget", "slower": args.slower, "noise": args.noise, "rows": rows}))


SHARES = ("prepare", "storing", "proxy", "full")
WIDTH = 11


def searched(data, space_name, budget, workers, args, seed):
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
    at, batch = speed.at(plan.image_scale), plan.full_recipe.batch_size
    stored = 0.0 if whole else (VIEWS * train_images + val_images) / batch
    times = JobTimes.of(at, val_images / batch, stored).longer(speed.contention if workers > 1 else 1.0)
    planner = Planner(
        space,
        SAMPLERS["random"](Region.of(Fitting(space, lambda choice: {}), lambda choice: 1.0)),
        plan,
        total_seconds=total,
        describe=lambda choice: Candidate(key="".join(map(str, choice.digits)), choice={}),
        values=lambda outcome: (outcome.miou,),
        score=lambda outcome: outcome.miou,
        times=times,
    )
    pace = Pace(times, args.slower, args.noise, failures=args.failures)
    start = time.perf_counter()
    found = simulate(planner, pace, workers, total, score, seed)
    all_seconds = sum(found.seconds.values())
    return {
        "tried": sum(bool(trial.proxy or trial.full) for trial in planner.trials),
        "expected": plan.expected_candidates,
        "finalists": sum(bool(trial.full) for trial in planner.trials if trial.candidate.label is None),
        **{name: found.seconds[name] / all_seconds for name in SHARES},
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
