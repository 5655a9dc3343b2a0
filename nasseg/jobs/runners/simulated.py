"""A runner of made-up workers on a made-up clock: a search of days in seconds, for tests and benchmarks of plans."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from nasseg.planning.job import Candidate, Job, JobResult, Outcome
from nasseg.planning.machine import Speed
from nasseg.planning.planner import Planner

JOB_SECONDS = 0.7
"""Of any job, beyond its steps and its scoring."""


@dataclass(frozen=True)
class Pace:
    """How long jobs take: as the `speed` says, `slower` times that, each with a lognormal deviation of `noise`.

    A share `failures` of the jobs fails half-way. Storing features takes `storing_seconds`, starting the workers
    `starting_seconds`.
    """

    speed: Speed
    val_batches: float
    slower: float = 1.0
    noise: float = 0.1
    failures: float = 0.0
    storing_seconds: float = 0.0
    starting_seconds: float = 15.0

    def seconds(self, job: Job) -> float:
        """Return what a job takes by the speed."""
        steps, speed = job.stop_step - job.start_step, self.speed
        if job.task == "relax":
            return steps * speed.relax_step_seconds + JOB_SECONDS
        if job.task == "proxy":
            each = steps * speed.trial_step_seconds + speed.trial_scoring_seconds(self.val_batches)
            return len(job.candidates) * each + JOB_SECONDS
        seconds = steps * speed.full_step_seconds + speed.scoring_seconds(self.val_batches) + JOB_SECONDS
        return seconds + self.storing_seconds * (job.task == "prepare")


@dataclass
class Simulated:
    """What a simulated search did: its end, the jobs, and the seconds of all workers by kind of job."""

    end_seconds: float = 0.0
    jobs: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    idle_share: float = 0.0


def simulate(
    planner: Planner,
    pace: Pace,
    workers: int,
    total_seconds: float,
    score: Callable[[Candidate, int, int], float],
    seed: int = 0,
) -> Simulated:
    """Run a planner's jobs to the end; `score` returns the mIoU of a candidate at a step with a seed."""
    rng, found = random.Random(seed), Simulated()
    clock = pace.starting_seconds
    running: list[tuple[float, int, JobResult]] = []
    while True:
        while len(running) < workers and (job := planner.next_job(clock / total_seconds)) is not None:
            failed = rng.random() < pace.failures and job.task != "prepare"
            seconds = pace.slower * pace.seconds(job) * rng.lognormvariate(0, pace.noise) * (0.5 if failed else 1)
            found.jobs[job.task] += 1
            found.seconds[job.task] += seconds
            result = _failed(job, seconds) if failed else _result(job, seconds, score)
            heapq.heappush(running, (clock + seconds, job.number, result))
        if not running:
            break
        clock, _, result = heapq.heappop(running)
        planner.tell(result)
    found.end_seconds = clock
    found.idle_share = 1 - sum(found.seconds.values()) / (workers * (clock - pace.starting_seconds))
    return found


def _failed(job: Job, seconds: float) -> JobResult:
    return JobResult.failed(job, "made up", seconds)


def _result(job: Job, seconds: float, score: Callable[[Candidate, int, int], float]) -> JobResult:
    if job.task == "relax":
        return JobResult(job=job, outcomes=(), seconds=seconds)
    outcomes = [
        Outcome(key=c.key, status="ok", step=job.stop_step, miou=score(c, job.stop_step, job.seed), madds=1, params=1)
        for c in job.candidates
    ]
    return JobResult(job=job, outcomes=tuple(outcomes), seconds=seconds)
