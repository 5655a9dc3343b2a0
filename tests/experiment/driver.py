"""A search in a process of its own, which may be killed.

It joins, or makes, the study `shared`, with a plan that takes no measuring. The log has what is on record.
"""

import threading
import time
from pathlib import Path

from nasseg.experiment import begin as beginning
from nasseg.experiment import experiment as searching
from nasseg.experiment.record import Record
from nasseg.jobs.context import Problem
from nasseg.jobs.worker import Worker
from nasseg.planning.config import SearchConfig
from nasseg.planning.job import Job, JobResult
from nasseg.planning.options import SearchOptions
from tests.jobs.tiny import DATA, tiny_config
from tests.report.made_up import latency

CANDIDATES = 7
JOB_SECONDS = 0.05
"""That a job takes longer than it needs, so that searches are at it together."""


def planned(problem: Problem, *_: object) -> SearchConfig:
    """Make a plan as `plan_search` does, without measuring."""
    options, plan = problem.options, tiny_config(candidates=CANDIDATES, finalists=2).plan
    derived = {"sampler": "random", "objective": "score", "budget": options.budget, "plan": plan}
    given = {name: getattr(options, name) for name in SearchOptions.model_fields}
    return SearchConfig.model_validate({**given, **derived, "fingerprints": problem.fingerprints})


def options_of(url: str, study: str, space: str) -> SearchOptions:
    return SearchOptions(
        space=space,
        data=DATA,
        budget=f"{CANDIDATES}trials",
        storage=url,
        study=study,
        runner="in-process",
        device="cpu",
        sampler="random",
    )


def log_to(path: Path) -> None:
    """Write a line for each training that is on record."""
    add, run = Record.add, Worker.run

    def adding(self: Record, result: JobResult, *rest: object) -> None:
        add(self, result, *rest)  # type: ignore[arg-type]
        job = result.job
        with path.open("a") as log:
            log.writelines(f"{job.task} {c.key} {job.stop_step} {job.seed}\n" for c in job.candidates)

    def slowly(self: Worker, job: Job) -> JobResult:
        time.sleep(JOB_SECONDS)
        return run(self, job)

    Record.add, Worker.run = adding, slowly  # type: ignore[method-assign,assignment]


def main(folder: Path, url: str, study: str, space: str) -> None:
    """Search in `folder`, or go on there. Nothing is measured; the log is beside the folder."""
    beginning.plan_search = planned  # type: ignore[assignment]
    searching.measure_latency = lambda networks, *_, **__: dict.fromkeys(networks, latency(1.0))  # type: ignore[assignment]
    log_to(folder.with_suffix(".log"))
    if folder.exists():
        search = searching.Experiment.open(folder, space=space, storage=url)
    else:
        search = beginning.begin(folder, options_of(url, study, space))
    search.run(threading.Event(), lambda search: None)
