"""Time what a search does besides training: recording, ranking, writing, reporting; proposing; resuming.

    python benchmarks/driver.py --trials 1000 30000
    git worktree add ../before COMMIT
    python benchmarks/driver.py --trials 300 1000 --checkouts ../before .

Searches run in their own processes, the checkouts in turns, on small street scenes, with made-up scores in place of
training; the time of these is subtracted. Candidates are drawn at random and what that takes is subtracted too: in a
second process the run folder is opened again, as for `--resume`, and `--sampler` is asked for a few proposals.

A job's milliseconds are by the wall clock and of the processor, which other programs of a busy machine change less.
They are over the whole search, and over its last fifth, where a growing cost is seen first; all threads count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SEARCH = """
import json, random, resource, sys, threading, time
from pathlib import Path

from nasseg.experiment.begin import begin
from nasseg.jobs.worker import Worker
from nasseg.planning.job import JobResult, Outcome
from nasseg.planning.options import SearchOptions
from nasseg.planning.samplers.proposals import Proposals
from nasseg.report.search import SearchReporter
from nasseg.train.fit import seeded_network
from nasseg.train.model import save_model

folder, trials, objective = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
clocks = (time.perf_counter, time.process_time)
elsewhere = [0.0, 0.0]


def subtracted(function):
    def timed(*arguments):
        start = [clock() for clock in clocks]
        try:
            return function(*arguments)
        finally:
            for place, clock in enumerate(clocks):
                elsewhere[place] += clock() - start[place]

    return timed


def run(self, job):
    outcomes = []
    for candidate in job.candidates:
        rng = random.Random(candidate.key)
        costs = {"params": rng.randrange(10**6, 2 * 10**6), "madds": rng.randrange(10**9, 2 * 10**9)}
        miou = rng.uniform(0.2, 0.4) + 0.1 * random.Random(f"{candidate.key} {job.seed} {job.stop_step}").random()
        outcomes.append(
            Outcome(key=candidate.key, status="ok", step=job.stop_step, miou=miou, class_iou=(miou,) * 11, **costs)
        )
        if job.task in ("prepare", "full"):
            architecture = self.context.architecture(candidate)
            file = self.context.folder / "checkpoints" / f"{candidate.key}-full{job.seed}.safetensors"
            file.parent.mkdir(exist_ok=True)
            save_model(file, seeded_network(architecture, 0), self.context.provenance)
    return JobResult(job=job, outcomes=tuple(outcomes), seconds=0.01)


Worker.run = subtracted(run)
Proposals.next = subtracted(Proposals.next)
search = begin(folder, SearchOptions.parse(dict(
    space="dpc:filters=16", data="streets:size=64x96,train=8,val=4,test=4", budget=f"{trials}trials", rungs=(2, 4),
    full_steps=4, finalists=2, seeds=2, image_scale=1.0, runner="in-process", device="cpu", sampler="random",
    objective=objective,
)))
stamps = []


def update(search):
    reporter.update(search)
    if search.planner.in_flight:
        stamps.append([clock() - spent for clock, spent in zip(clocks, elsewhere)])


def per_job(start):
    jobs = len(stamps) - 1 - start
    return [round(1e3 * (last - first) / jobs, 2) for first, last in zip(stamps[start], stamps[-1])]


with SearchReporter(search) as reporter:
    search.run(threading.Event(), update)
print(json.dumps({
    "jobs": len(stamps),
    "job_ms": per_job(0),
    "last_job_ms": per_job(4 * len(stamps) // 5),
    "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
}))
"""

RESUME = """
import json, resource, statistics, sys, time
from pathlib import Path

from nasseg.experiment.experiment import Experiment
from nasseg.planning.config import SearchConfig
from nasseg.planning.samplers.proposals import Proposals
from nasseg.run_folder import save_config

folder, sampler, proposals = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
config = SearchConfig.load(folder)
plan = config.plan.model_copy(update={"candidates": config.plan.candidates + proposals})
save_config(config.model_copy(update={"sampler": sampler, "plan": plan}), folder)
clocks = (time.perf_counter, time.process_time)
propose, taken = Proposals.next, []


def timed(self):
    start = [clock() for clock in clocks]
    choice = propose(self)
    taken.append([clock() - begun for clock, begun in zip(clocks, start)])
    return choice


Proposals.next = timed
start = [clock() for clock in clocks]
search = Experiment.open(folder)
resumed = [round(clock() - begun, 2) for clock, begun in zip(clocks, start)]
while len(taken) < proposals:
    search.planner.next_job(0.0)
# The first proposal imports its sampler.
print(json.dumps({
    "resume_s": resumed,
    "proposal_ms": [round(1e3 * statistics.median(column), 1) for column in zip(*taken[1:])],
    "resumed_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
}))
"""
PROPOSALS = 12

COLUMNS = {
    "job_ms": "ms / job",
    "last_job_ms": "last fifth",
    "proposal_ms": "proposal, ms",
    "resume_s": "resume, s",
    "peak_mib": "MiB",
    "resumed_peak_mib": "resumed, MiB",
    "folder_mib": "folder, MiB",
    "tensorboard_files": "TensorBoard files",
}


def main() -> None:
    """Search with every checkout and number of trials, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkouts", nargs="+", type=Path, default=[Path.cwd()])
    parser.add_argument("--trials", nargs="+", type=int, default=[1000, 30000])
    parser.add_argument("--sampler", default="tpe", help="asked for the proposals")
    parser.add_argument("--objective", default="score", choices=["score", "pareto"])
    arguments = parser.parse_args()
    print("wall clock / processor time")
    print(f"{'checkout':20} {'trials':>7} " + " ".join(f"{title:>15}" for title in COLUMNS.values()))
    rows = []
    for trials in arguments.trials:
        for checkout in arguments.checkouts:
            row = measured(checkout.resolve(), trials, arguments.sampler, arguments.objective)
            rows.append({"checkout": str(checkout), "trials": trials, **row})
            cells = [" / ".join(map(str, value)) if isinstance(value, list) else str(value) for value in row.values()]
            named = dict(zip(row, cells, strict=True))
            line = " ".join(f"{named[name]:>15}" for name in COLUMNS)
            print(f"{str(checkout)[-20:]:20} {trials:7} {line}", flush=True)
    print(json.dumps({"sampler": arguments.sampler, "objective": arguments.objective, "rows": rows}))


def measured(checkout: Path, trials: int, sampler: str, objective: str) -> dict[str, object]:
    """Search once, open the search again, and look at what it left."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        searched = run(checkout, SEARCH, folder, trials, objective)
        files = [path for path in folder.rglob("*") if path.is_file()]
        left = {
            "folder_mib": round(sum(path.stat().st_size for path in files) / 2**20, 1),
            "tensorboard_files": sum("tensorboard" in path.relative_to(folder).parts for path in files),
        }
        return {**searched, **left, **run(checkout, RESUME, folder, sampler, PROPOSALS)}


def run(checkout: Path, script: str, *arguments: object) -> dict[str, object]:
    """Run a script in a process of its own and read the JSON document on its last line."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    document: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return document


if __name__ == "__main__":
    main()
