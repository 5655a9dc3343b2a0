"""Time what a search does besides training: proposing, recording, ranking, writing, reporting.

    git worktree add ../before COMMIT
    python benchmarks/driver.py --trials 300 ../before .

Each checkout searches in its own process, in turns, on small street scenes, with made-up scores in place of training.
The time of the stub itself is subtracted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SEARCH = """
import json, random, sys, threading, time
from pathlib import Path

from nasseg.train.fit import seeded_network
from nasseg.train.model import save_model

try:
    from nasseg.experiment.begin import begin
    from nasseg.jobs.worker import Worker
    from nasseg.planning.job import JobResult, Outcome
    from nasseg.planning.options import SearchOptions
    new = True
except ImportError:  # before the search had rooms
    from nasseg.search.job import JobResult, Outcome
    from nasseg.search.run import begin_with
    from nasseg.search.worker import SearchWorker as Worker
    new = False
from nasseg.report.search import SearchReporter

folder, trials, sampler = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
stub_seconds = 0.0


def run(self, job):
    global stub_seconds
    start = time.perf_counter()
    outcomes = []
    for candidate in job.candidates:
        rng = random.Random(candidate.key)
        costs = {"params": rng.randrange(10**6, 2 * 10**6), "madds": rng.randrange(10**9, 2 * 10**9)}
        miou = rng.uniform(0.2, 0.4) + 0.1 * random.Random(f"{candidate.key} {job.seed} {job.stop_step}").random()
        outcomes.append(
            Outcome(key=candidate.key, status="ok", step=job.stop_step, miou=miou, class_iou=(miou,) * 11, **costs)
        )
        if job.task in ("prepare", "full"):
            holder = self.context if new else self
            architecture = holder.architecture(candidate)
            file = holder.folder / "checkpoints" / f"{candidate.key}-full{job.seed}.safetensors"
            file.parent.mkdir(exist_ok=True)
            save_model(file, seeded_network(architecture, 0), holder.provenance)
    result = JobResult(job=job, outcomes=tuple(outcomes), seconds=0.01)
    stub_seconds += time.perf_counter() - start
    return result


Worker.run = run
options = dict(
    space="dpc:filters=16", data="streets:size=64x96,train=8,val=4,test=4", budget=f"{trials}trials", rungs=(2, 4),
    full_steps=4, finalists=2, seeds=2, image_scale=1.0, runner="in-process", device="cpu", sampler=sampler,
)
if new:
    search = begin(folder, SearchOptions.parse(options))
else:
    search = begin_with(folder, concurrency=None, **options)
stamps = []


def update(search):
    reporter.update(search)
    stamps.append(time.perf_counter() - stub_seconds)


start = time.perf_counter()
with SearchReporter(search) as reporter:
    search.run(threading.Event(), update)
# The last update follows the measurement of latencies.
print(json.dumps({"driver_seconds": round(stamps[-2] - start, 2)}))
"""


def main() -> None:
    """Search with every checkout in turns and print each one's driver time, and its ratio to the first's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="+", type=Path)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {str(checkout): [] for checkout in arguments.checkouts}
    for _ in range(arguments.repeats):
        for checkout in arguments.checkouts:
            seconds[str(checkout)].append(driver_seconds(checkout.resolve(), arguments.trials, arguments.sampler))
    first = statistics.median(seconds[str(arguments.checkouts[0])])
    print(f"{'checkout':40} {'driver, s':>10} {'ms / trial':>11} {'ratio':>6}")
    for name, measured in seconds.items():
        median = statistics.median(measured)
        print(f"{name:40} {median:10.1f} {1e3 * median / arguments.trials:11.1f} {median / first:6.2f}")
    print(json.dumps({"trials": arguments.trials, "sampler": arguments.sampler, "seconds": seconds}))


def driver_seconds(checkout: Path, trials: int, sampler: str) -> float:
    """Measure the seconds that the driver of one search takes."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", SEARCH, str(Path(folder) / "run"), str(trials), sampler],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    return float(json.loads(done.stdout.splitlines()[-1])["driver_seconds"])


if __name__ == "__main__":
    main()
