"""A runner of made-up workers on a made-up clock: a search of days in seconds, for tests and benchmarks of plans."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from nasseg.planning.job import Candidate, Job, JobResult, Outcome
from nasseg.planning.machine import Speed
from nasseg.planning.plan import PROXY_OVERHEAD_SECONDS
from nasseg.planning.planner import Planner


@dataclass(frozen=True)
class Pace:
    """How long jobs take: as the `speed` says, `slower` times that, each with a lognormal deviation of `noise`.

    A share `failures` of the jobs fails half-way. Any job has the overhead of a proxy. Storing features takes
    `storing_seconds`, starting the workers `starting_seconds`.
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
            return steps * speed.relax_step_seconds + PROXY_OVERHEAD_SECONDS
        if job.task == "proxy":
            each = steps * speed.trial_step_seconds + speed.trial_scoring_seconds(self.val_batches)
            return len(job.candidates) * each + PROXY_OVERHEAD_SECONDS
        seconds = steps * speed.full_step_seconds + speed.scoring_seconds(self.val_batches) + PROXY_OVERHEAD_SECONDS
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

    def run(job: Job) -> JobResult:
        failed = rng.random() < pace.failures and job.task != "prepare"
        seconds = pace.slower * pace.seconds(job) * rng.lognormvariate(0, pace.noise) * (0.5 if failed else 1)
        found.jobs[job.task] += 1
        found.seconds[job.task] += seconds
        if failed:
            return JobResult.failed(job, "made up", seconds)
        storing = pace.storing_seconds / pace.seconds(job) * seconds if job.task == "prepare" else 0.0
        return _result(job, seconds, score).model_copy(update={"storing_seconds": storing})

    start = pace.starting_seconds
    found.end_seconds = run_on_a_clock(planner, workers, run, lambda clock: clock / total_seconds, start)
    found.idle_share = 1 - sum(found.seconds.values()) / (workers * (found.end_seconds - start))
    return found


def run_on_a_clock(
    planner: Planner, workers: int, run: Callable[[Job], JobResult], spent: Callable[[float], float], clock: float = 0.0
) -> float:
    """Run a planner's jobs, each of which takes the seconds of its result; return the second at which the last ends.

    `spent` is the share of the budget that is spent at a second of the clock.
    """
    running: list[tuple[float, int, JobResult]] = []
    while True:
        while len(running) < workers and (job := planner.next_job(spent(clock))) is not None:
            result = run(job)
            heapq.heappush(running, (clock + result.seconds, job.number, result))
        if not running:
            return clock
        clock, _, result = heapq.heappop(running)
        planner.tell(result)


def _result(job: Job, seconds: float, score: Callable[[Candidate, int, int], float]) -> JobResult:
    if job.task == "relax":
        return JobResult(job=job, outcomes=(), seconds=seconds)
    outcomes = [
        Outcome(key=c.key, status="ok", step=job.stop_step, miou=score(c, job.stop_step, job.seed), madds=1, params=1)
        for c in job.candidates
    ]
    return JobResult(job=job, outcomes=tuple(outcomes), seconds=seconds)
