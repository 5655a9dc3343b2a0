"""Time opening a search of many trials, as --resume does, without searching first.

    python benchmarks/opening.py --trials 30000

The record has 1,500 made-up trials of dense prediction cells, of which every third was promoted, again and again under
other keys. `driver.py` opens records that a search has written, which takes hours to make.
"""

import argparse
import json
import random
import re
import resource
import tempfile
import time
from pathlib import Path

from nasseg.experiment.begin import begin
from nasseg.experiment.experiment import Experiment
from nasseg.planning.job import Candidate, Job, JobResult, Outcome
from nasseg.planning.options import SearchOptions

RECORDED = 1500
OPTIONS = {
    "space": "dpc:filters=16",
    "data": "streets:size=64x96,train=8,val=4,test=4",
    "rungs": (2, 4),
    "full_steps": 4,
    "image_scale": 1.0,
    "runner": "in-process",
    "device": "cpu",
    "sampler": "random",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30000, help="rounded up to a multiple of 1,500")
    args = parser.parse_args()
    repeats = -(-args.trials // RECORDED)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        record(begin(folder, SearchOptions.parse({**OPTIONS, "budget": f"{repeats * RECORDED}trials"})))
        repeat(folder / "study.journal", repeats)
        wall, processor = time.perf_counter(), time.process_time()
        search = Experiment.open(folder)
        row = {
            "trials": len(search.planner.trials),
            "seconds": round(time.perf_counter() - wall, 2),
            "processor_seconds": round(time.process_time() - processor, 2),
            "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }
    print(", ".join(f"{name} {value}" for name, value in row.items()))
    print(json.dumps({"benchmark": "opening", **row}))


def record(search):
    """Record made-up results of random candidates."""
    space, rng = search.problem.space, random.Random(0)
    for number in range(RECORDED):
        choice = space.canonical(space.sample(rng))
        candidate = Candidate(key=f"{number:040x}", choice=choice.model_dump(mode="json"))
        for start, stop in ((0, 2), (2, 4)) if number % 3 == 0 else ((0, 2),):
            ious = tuple(rng.random() for _ in range(11))
            costs = {"params": rng.randrange(10**6), "madds": rng.randrange(10**9)}
            outcome = Outcome(key=candidate.key, status="ok", step=stop, miou=ious[0], class_iou=ious, **costs)
            job = Job(number=number, task="proxy", candidates=(candidate,), seed=0, start_step=start, stop_step=stop)
            search.record.add(JobResult(job=job, outcomes=(outcome,), seconds=1.0))


def repeat(journal, times):
    """Write the trials of a journal again under other keys."""
    trials = [line for line in journal.read_text().splitlines() if "trial_id" in line or '"key":"' in line]
    with journal.open("a") as file:
        for place in range(1, times):
            for line in trials:
                file.write(f"{shifted(line, RECORDED * place)}\n")


def shifted(line, count):
    """Let a line be of another trial, so many further on."""
    line = re.sub(r'"trial_id":(\d+)', lambda found: f'"trial_id":{int(found[1]) + count}', line)
    return re.sub(r'"key":"([0-9a-f]{40})"', lambda found: f'"key":"{int(found[1], 16) + count:040x}"', line)


if __name__ == "__main__":
    main()
