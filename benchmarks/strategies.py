"""Searches of one space with equal budgets: by gradient, by trials (TPE), by random trials, with several seeds each.

    python benchmarks/strategies.py --out runs/strategies --data folder:PATH --train-split search-train \
        --val-split search-val

Each search runs in its own process, with one thread on one core; `--cores 0 1` runs two at once, each pinned to its
core. All share one plan: image scale, rungs and the final are given, not derived from a measured speed, so that a busy
machine does not change it. A search already in the `--out` folder is not run again; the table covers all that are
there. A search's result is the candidate with the best score, the mean over its end-to-end seeds, without references.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from statistics import mean

METHODS = {"gradient": {"strategy": "gradient"}, "tpe": {"sampler": "tpe"}, "random": {"sampler": "random"}}
SPACE = "auto_deeplab:layers=6,blocks=3,filters=8,stem_filters=16,head_filters=64,decoder=false"
RELAX_END, PROXY_END = 0.35, 0.6
"""Shares of the budget after which relaxations, and trials by proxy, are planned to end."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--space", default=SPACE)
    parser.add_argument("--data", default="streets")
    parser.add_argument("--train-split", default="train")
    parser.add_argument("--val-split", default="val")
    parser.add_argument("--latency", metavar="TABLE.json", help="cost is latency by this table, not MAdds")
    parser.add_argument("--target-latency", help="like 10ms")
    parser.add_argument("--budget", default="30min")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cores", nargs="+", type=int, default=[0])
    parser.add_argument("--image-scale", type=float, default=0.375)
    parser.add_argument("--full-steps", type=int, default=450)
    parser.add_argument("--relax-steps", type=int, default=450)
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "SEED"), help="run this search here")
    args = parser.parse_args()
    if args.one:
        run_one(args, args.one[0], int(args.one[1]))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    cores = Queue()
    for core in args.cores:
        cores.put(core)

    def run(task):
        method, seed = task
        if result_file(args, method, seed).exists():
            return
        core = cores.get()
        command = [sys.executable, *sys.argv, "--one", method, str(seed)]
        with (args.out / f"{method}-{seed}.log").open("w") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "NASSEG_CORE": str(core)}
            subprocess.run(command, env=environment, stdout=log, stderr=log, check=False)
        cores.put(core)

    tasks = [(method, seed) for seed in range(args.seeds) for method in args.methods]
    with ThreadPoolExecutor(len(args.cores)) as pool:
        list(pool.map(run, tasks))
    show(args)


def result_file(args, method, seed):
    return args.out / f"{method}-{seed}.json"


def run_one(args, method, seed):
    os.sched_setaffinity(0, {int(os.environ["NASSEG_CORE"])})
    from nasseg.experiment.begin import plan_search
    from nasseg.experiment.experiment import Experiment
    from nasseg.jobs.context import Context, Problem
    from nasseg.planning.options import SearchOptions
    from nasseg.report.search import SearchReporter

    steps = args.full_steps
    rungs = (steps // 6, steps // 2)
    relaxing = {"relax_steps": args.relax_steps, "relaxations": 1} if method == "gradient" else {}
    options = SearchOptions(
        space=args.space,
        data=args.data,
        train_split=args.train_split,
        val_split=args.val_split,
        latency=args.latency,
        target_latency=args.target_latency,
        budget=args.budget,
        seed=seed,
        runner="in-process",
        concurrency=1,
        image_scale=args.image_scale,
        full_steps=steps,
        finalists=2,
        seeds=2,
        rungs=rungs,
        **METHODS[method],
        **relaxing,
    )
    problem = Problem(options)
    config = plan_search(problem)
    plan = config.plan.model_copy(update={"relax_share": RELAX_END, "proxy_share": PROXY_END})
    folder = args.out / f"{method}-{seed}"
    folder.mkdir()
    config = config.model_copy(update={"plan": plan})
    config.save(folder)
    search = Experiment(config, Context(problem, plan, folder))
    with SearchReporter(search) as reporter:
        search.run(threading.Event(), reporter.update)
    result_file(args, method, seed).write_text(json.dumps(result_of(search)))


def result_of(search):
    results = search.results
    best = next(trial for trial in results.ranked if trial.full and trial.candidate.label is None)
    return {
        "best": summary(search, best),
        "references": {name: summary(search, trial) for name, trial in results.references.items()},
        "unit": search.objective.unit,
        "candidates": len(results.trials),
        "elapsed_seconds": search.elapsed_seconds,
    }


def summary(search, trial):
    return {
        "miou": [outcome.miou for outcome in trial.full.values() if outcome.miou is not None],
        "score": search.results.score(trial),
        "cost": search.objective.cost(trial.costs),
    }


def numbers(values, form):
    return ", ".join(format(value, form) for value in values)


def show(args):
    rows = {}
    for method in METHODS:
        found = [json.loads(file.read_text()) for file in sorted(args.out.glob(f"{method}-*.json"))]
        if found:
            rows[method] = found
    unit = next(result["unit"] for found in rows.values() for result in found)
    print(f"\n{args.space} on {args.data}, {args.budget} on one core each, target {args.target_latency}")
    print(
        f"{'search':16}{'mIoU of the best, by seed':30}{'mean':>8}{'score':>8}  {unit + ' of the best':30}"
        f"{'candidates':>12}{'minutes':>9}"
    )
    for method, found in rows.items():
        best = [result["best"] for result in found]
        mious = [mean(b["miou"]) for b in best]
        print(
            f"{method:16}{numbers(mious, '.4f'):30}{mean(mious):>8.4f}"
            f"{mean([b['score'] for b in best]):>8.4f}  {numbers([b['cost'] for b in best], '.4g'):30}"
            f"{mean([r['candidates'] for r in found]):>12.1f}{mean([r['elapsed_seconds'] / 60 for r in found]):>9.1f}"
        )
    results = [result["references"] for found in rows.values() for result in found]
    for name in results[0]:
        references = [result[name] for result in results]
        print(
            f"{name:16}{'(reference)':30}{mean([score for r in references for score in r['miou']]):>8.4f}"
            f"{mean([r['score'] for r in references]):>8.4f}  {references[0]['cost']:.4g}"
        )
    print(json.dumps({"setting": {**vars(args), "out": str(args.out)}, "results": rows}))


if __name__ == "__main__":
    main()
