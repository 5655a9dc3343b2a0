"""The time until a search holds a cell as good as the best that the paper's own method finds.

    OMP_NUM_THREADS=1 python benchmarks/search_efficiency.py run --work WORK --data folder:PATH \
        --train-split search-train --val-split search-val --weights FILE
    python benchmarks/search_efficiency.py page --work WORK

DPC's method (Chen et al., Searching for Efficient Multi-Scale Architectures for Dense Image Prediction, NeurIPS 2018)
trains every cell to the full length on stored features and proposes random cells and neighbours of the best. Here it
does so with `--cells` cells. The other methods leave out one of the two things that a search adds by default, TPE and
successive halving, or neither; they end once they have taken as long as the paper's method. All train on the same
features by the same schedule, so that a cell's score at the full length is the same in all of them.

Time is the processor's, of jobs on features; preparing them is the same for all and left out, and so is what a
proposal takes (`driver.py`). The score to reach is the mean, over the seeds, of the best that the paper's method found.
`run` runs what has no result yet, one search a file, in any number of processes. It may be on a busy machine: a job
counts with the median of all jobs between the same rungs.
"""

import argparse
import json
import os
import shutil
import statistics
import threading
import time
from pathlib import Path

from filelock import FileLock, Timeout

from nasseg.experiment.begin import begin
from nasseg.graph import write_atomically
from nasseg.planning.options import SearchOptions

PAPER, DEFAULT = "paper", "TPE, halving"
METHODS = {
    PAPER: ("neighbourhood", False),
    "paper, halving": ("neighbourhood", True),
    "TPE": ("tpe", False),
    DEFAULT: ("tpe", True),
}
"""The sampler, and whether candidates are halved."""
REDUCTION = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser, page_parser = commands.add_parser("run"), commands.add_parser("page")
    for command in (run_parser, page_parser):
        command.add_argument("--work", type=Path, required=True)
    run_parser.add_argument("--space", default="dpc:filters=64")
    run_parser.add_argument("--data", required=True)
    run_parser.add_argument("--train-split", default="train")
    run_parser.add_argument("--val-split", default="val")
    run_parser.add_argument("--weights")
    run_parser.add_argument("--image-scale", type=float, default=0.375)
    run_parser.add_argument("--prepare-steps", type=int, default=60)
    run_parser.add_argument("--steps", type=int, default=180, help="the full length of a cell's training")
    run_parser.add_argument("--cells", type=int, default=64)
    run_parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    run(args) if args.command == "run" else page(args)


def run(args):
    """Run the searches that have no result and that no other process runs."""
    results = args.work / "results"
    results.mkdir(parents=True, exist_ok=True)
    for seed in range(args.seeds):
        for method in METHODS:
            file = results / f"{method.replace(', ', '-')}-{seed}.json"
            if file.exists():
                continue
            try:
                with FileLock(file.with_suffix(".lock"), timeout=0):
                    if not file.exists():
                        found = searched(args, method, seed)
                        write_atomically(file, json.dumps(found))
                        top = [job["miou"] for job in found["jobs"] if job["step"] == args.steps]
                        print(
                            f"{method}, seed {seed}: {len(top)} cells at the top, the best {max(top):.4f}", flush=True
                        )
            except Timeout:
                continue


def searched(args, method, seed):
    """Search, and return every job on features: the cell, the steps that it was trained from and to, score, seconds."""
    sampler, halves = METHODS[method]
    options = SearchOptions(
        space=args.space,
        data=args.data,
        train_split=args.train_split,
        val_split=args.val_split,
        weights=args.weights,
        budget=f"{args.cells * (REDUCTION**2 if halves else 1)}trials",
        seed=seed,
        sampler=sampler,
        rungs=(args.steps // REDUCTION**2, args.steps // REDUCTION, args.steps) if halves else (args.steps,),
        full_steps=args.prepare_steps,
        finalists=1,
        seeds=1,
        image_scale=args.image_scale,
        concurrency=1,
        runner="in-process",
        device="cpu",
    )
    folder = args.work / f"search-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    search, stop, jobs = begin(folder, options), threading.Event(), []
    start, add, most_steps, started = search.record.start, search.record.add, args.cells * args.steps, 0.0

    def starting(job):
        nonlocal started
        start(job)
        started = time.process_time()

    def adding(result, *rest):
        seconds = time.process_time() - started
        add(result, *rest)
        if result.job.task == "proxy":
            (outcome,) = result.outcomes
            jobs.append(
                {
                    "key": outcome.key,
                    "start": result.job.start_step,
                    "step": outcome.step,
                    "miou": outcome.miou,
                    "seconds": seconds,
                }
            )
        trained = sum(job["step"] - job["start"] for job in jobs)
        if trained >= most_steps or result.job.task == "full":
            stop.set()

    search.record.start, search.record.add = starting, adding
    search.run(stop, lambda search: None)
    shutil.rmtree(folder)
    return {"method": method, "seed": seed, "steps": args.steps, "cells": args.cells, "jobs": jobs}


def page(args):
    """Print, for each method, what its searches found and when they held a cell that is as good as the paper's best."""
    found = [json.loads(file.read_text()) for file in sorted((args.work / "results").glob("*.json"))]
    seconds = {}
    for search in found:
        for job in search["jobs"]:
            seconds.setdefault((job["start"], job["step"]), []).append(job["seconds"])
    typical = {rung: statistics.median(times) for rung, times in seconds.items()}
    best = {method: [curve(s, typical)[-1][1] for s in found if s["method"] == method] for method in METHODS}
    target = statistics.mean(best[PAPER])
    for (start, step), median in sorted(typical.items()):
        print(f"{start} to {step} steps: {median:.2f} s")
    print(f"to reach: {target:.4f}")
    print("\n| method | best | seconds until as good | of the paper's method |\n|---|---|---|---|")
    paper = statistics.mean(reached(s, typical, target)[0] for s in found if s["method"] == PAPER)
    rows = {}
    for method in dict.fromkeys(search["method"] for search in found):
        searches = [search for search in found if search["method"] == method]
        times = [reached(search, typical, target) for search in searches]
        missed = sum(not there for _, there in times)
        mean = statistics.mean(time for time, _ in times)
        rows[method] = {"best": best[method], "seconds": [time for time, _ in times], "missed": missed}
        at_least = f"at least {mean:.0f}, {missed} of {len(times)} did not" if missed else f"{mean:.0f}"
        print(f"| {method} | {', '.join(f'{b:.4f}' for b in best[method])} | {at_least} | {mean / paper:.2f} |")
    print(json.dumps({"benchmark": "search_efficiency", "target": target, "methods": rows, "searches": len(found)}))


def curve(search, typical):
    """Return the seconds at which a search found each better cell at the full length, with its score."""
    spent, best, points = 0.0, float("-inf"), [(0.0, float("-inf"))]
    for job in search["jobs"]:
        spent += typical[job["start"], job["step"]]
        if job["step"] == search["steps"] and (job["miou"] or 0.0) > best:
            best = job["miou"]
            points.append((spent, best))
    return points


def reached(search, typical, target):
    """Return the seconds until a search held a cell of at least that score, and whether it ever did."""
    for spent, best in curve(search, typical):
        if best >= target:
            return spent, True
    return sum(typical[job["start"], job["step"]] for job in search["jobs"]), False


if __name__ == "__main__":
    main()
