"""A runner of made-up workers on a made-up clock: a search of days in seconds, for tests and benchmarks of plans."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from nasseg.jobs.runners.dispatch import Delivery, late
from nasseg.planning.job import Candidate, Job, JobResult, Outcome
from nasseg.planning.machine import JobTimes
from nasseg.planning.planner import Planner


@dataclass(frozen=True)
class Pace:
    """How long jobs take: what `times` says, `slower` times that, each with a lognormal deviation of `noise`.

    A share `failures` of the jobs fails half-way. The `broken` workers fail every job after `broken_seconds`, and a
    share `hangs` of the jobs never ends by itself. Starting a worker takes `starting_seconds`.
    """

    times: JobTimes
    slower: float = 1.0
    noise: float = 0.1
    failures: float = 0.0
    hangs: float = 0.0
    broken: frozenset[str] = frozenset()
    broken_seconds: float = 0.05
    starting_seconds: float = 15.0


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

    def run(job: Job, worker: str) -> JobResult:
        failed = rng.random() < pace.failures and job.task != "prepare"
        planned = pace.times.seconds(job)
        seconds = pace.slower * planned * rng.lognormvariate(0, pace.noise) * (0.5 if failed else 1)
        if worker in pace.broken:
            failed, seconds = True, pace.broken_seconds
        elif pace.hangs and rng.random() < pace.hangs:
            seconds = math.inf
        found.jobs[job.task] += 1
        if failed or math.isinf(seconds):
            return JobResult.failed(job, "made up", seconds)
        storing = pace.times.storing_seconds / planned * seconds if job.task == "prepare" else 0.0
        return _result(job, seconds, score).model_copy(update={"storing_seconds": storing})

    def on_end(result: JobResult) -> None:
        found.seconds[result.job.task] += result.seconds

    start = pace.starting_seconds
    found.end_seconds = run_on_a_clock(
        planner, workers, run, lambda clock: clock / total_seconds, start, start, pace.times, on_end
    )
    found.idle_share = 1 - sum(found.seconds.values()) / (workers * (found.end_seconds - start))
    return found


def run_on_a_clock(
    planner: Planner,
    workers: int,
    run: Callable[[Job, str], JobResult],
    spent: Callable[[float], float],
    clock: float = 0.0,
    starting_seconds: float = 0.0,
    times: JobTimes | None = None,
    on_end: Callable[[JobResult], object] = lambda result: None,
) -> float:
    """Run a planner's jobs, each of which takes the seconds of its result; return the second at which the last ends.

    `run` is called with a job and the name of the worker, each with a device of its own, `on_end` with each result. A
    job that takes longer than it may, by `times`, fails then; a worker whose job failed takes `starting_seconds` to
    start again. `spent` is the share of the budget that is spent at a second of the clock.
    """
    now = clock
    delivery = Delivery(planner, _ignore, _ignore, lambda: spent(now), times)
    idle = [f"worker {number}" for number in range(workers)]
    running: list[tuple[float, int, str, JobResult | None]] = []
    order = count()
    for worker in idle:
        delivery.failures.join(worker)
    while True:
        idle = [worker for worker in idle if worker not in delivery.failures.kept_out]
        planner.clock.concurrency = workers - len(delivery.failures.kept_out)
        for worker in idle[:]:
            if (job := delivery.next_job(worker)) is None:
                continue
            idle.remove(worker)
            result, limit = run(job, worker), delivery.limit_seconds(job)
            if result.seconds > limit:
                result = late(job, limit)
            heapq.heappush(running, (now + result.seconds, next(order), worker, result))
        if not running or planner.done:
            return now
        now, _, worker, ended = heapq.heappop(running)
        if ended is None:
            idle.append(worker)
            continue
        on_end(ended)
        delivery.deliver(ended, worker)
        if ended.is_failure:
            heapq.heappush(running, (now + starting_seconds, next(order), worker, None))
        else:
            idle.append(worker)


def _ignore(_: object) -> None:
    """Observe nothing."""


def _result(job: Job, seconds: float, score: Callable[[Candidate, int, int], float]) -> JobResult:
    if job.task == "relax":
        return JobResult(job=job, outcomes=(), seconds=seconds)
    outcomes = [
        Outcome(key=c.key, status="ok", step=job.stop_step, miou=score(c, job.stop_step, job.seed), madds=1, params=1)
        for c in job.candidates
    ]
    return JobResult(job=job, outcomes=tuple(outcomes), seconds=seconds)
