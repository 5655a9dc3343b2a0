"""A runner of made-up workers on a made-up clock: a search of days in seconds, for tests and benchmarks of plans."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from nasseg.jobs.runners.dispatch import Delivery, late
from nasseg.planning.job import Candidate, Job, JobResult, Outcome
from nasseg.planning.machine import JobTimes
from nasseg.planning.planner import Planner


@dataclass(frozen=True)
class Pace:
    """How long jobs take: what `times` says, `slower` times that, each with a lognormal deviation of `noise`.

    The workers are on so many `machines`, each of which stores the features for itself. A share `failures` of the jobs
    fails half-way. The `broken` workers fail every job after `broken_seconds`, and a share `hangs` of the jobs never
    ends by itself. Starting a worker takes `starting_seconds`.
    """

    times: JobTimes
    slower: float = 1.0
    noise: float = 0.1
    machines: int = 1
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
        prepares = job.task == "prepare"  # without it a search ends at once
        failed = rng.random() < pace.failures and not prepares
        seconds = pace.slower * pace.times.seconds(job) * rng.lognormvariate(0, pace.noise) * (0.5 if failed else 1)
        if worker in pace.broken:
            failed, seconds = True, pace.broken_seconds
        elif pace.hangs and rng.random() < pace.hangs and not prepares:
            seconds = math.inf
        found.jobs[job.task] += 1
        if failed or math.isinf(seconds):
            return JobResult.failed(job, "made up", seconds)
        return _result(job, seconds, score)

    def on_end(result: JobResult) -> None:
        found.seconds["storing"] += result.storing_seconds
        found.seconds[result.job.task] += result.seconds - result.storing_seconds

    start = pace.starting_seconds
    storing = [Storing(pace.slower * pace.times.storing_seconds) for _ in range(pace.machines)]
    found.end_seconds = run_on_a_clock(
        planner, workers, run, lambda clock: clock / total_seconds, start, start, on_end, storing
    )
    found.idle_share = 1 - sum(found.seconds.values()) / (workers * (found.end_seconds - start))
    return found


@dataclass
class Storing:
    """The features of a machine, of which `left` seconds of work are to be stored by all workers that need them."""

    left: float
    now: float = 0.0
    waiting: list[tuple[float, str, JobResult]] = field(default_factory=list)
    """Since when which worker stores, before which job."""

    def join(self, now: float, worker: str, result: JobResult) -> float:
        """Let a worker store too, before its job; return when it will have ended unless others join."""
        self.left -= len(self.waiting) * (now - self.now)
        self.now = now
        self.waiting.append((now, worker, result))
        return now + self.left / len(self.waiting)

    def end(self, now: float) -> list[tuple[str, JobResult]]:
        """Return the workers that stored, with their jobs, if all is stored by now."""
        if self.left - len(self.waiting) * (now - self.now) > 1e-6:
            return []
        ended, self.waiting, self.left = self.waiting, [], 0.0
        return [
            (
                worker,
                result.model_copy(update={"storing_seconds": now - since, "seconds": now - since + result.seconds}),
            )
            for since, worker, result in ended
        ]


def run_on_a_clock(
    planner: Planner,
    workers: int,
    run: Callable[[Job, str], JobResult],
    spent: Callable[[float], float],
    clock: float = 0.0,
    starting_seconds: float = 0.0,
    on_end: Callable[[JobResult], object] = lambda result: None,
    storing: Sequence[Storing] = (),
) -> float:
    """Run a planner's jobs, each of which takes the seconds of its result; return the second at which the last ends.

    `run` is called with a job and the name of the worker, each with a device of its own, `on_end` with each result. A
    job that takes longer than it may fails then; a worker whose job failed takes `starting_seconds` to
    start again. `spent` is the share of the budget that is spent at a second of the clock. Features are stored once on
    each machine, by its workers' first short runs.
    """
    now = last_end = clock
    delivery = Delivery(planner, _ignore, _ignore, lambda: spent(now))
    idle = [f"worker {number}" for number in range(workers)]
    stored_by = {worker: storing[number % len(storing)] for number, worker in enumerate(idle) if storing}
    running: list[tuple[float, int, str, JobResult | Storing | None]] = []
    order = count()

    def begin(worker: str, job: Job, result: JobResult, since: float) -> None:
        limit = delivery.limit_seconds(job)
        ended = late(job, limit) if result.seconds > limit else result
        heapq.heappush(running, (since + ended.seconds, next(order), worker, ended))

    for worker in idle:
        delivery.failures.join(worker)
    while True:
        idle = [worker for worker in idle if worker not in delivery.failures.kept_out]
        planner.clock.concurrency = workers - len(delivery.failures.kept_out)
        for worker in idle[:]:
            if (job := delivery.next_job(worker)) is None:
                continue
            idle.remove(worker)
            result, features = run(job, worker), stored_by.get(worker)
            if job.task == "proxy" and features is not None and features.left > 0 and not result.is_failure:
                heapq.heappush(running, (features.join(now, worker, result), next(order), worker, features))
            else:
                begin(worker, job, result, now)
        if not running or planner.done:
            return last_end
        now, _, worker, ended = heapq.heappop(running)
        if isinstance(ended, Storing):
            for name, result in ended.end(now):
                begin(name, result.job, result, now - result.storing_seconds)
        elif ended is None:  # it has started again
            idle.append(worker)
        else:
            last_end = now
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
