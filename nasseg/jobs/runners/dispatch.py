"""Carrying jobs from a planner to a worker and their results back, for all runners."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

from nasseg.jobs.runners.failures import Failures
from nasseg.planning.job import Job, JobResult, Worker
from nasseg.planning.planner import Planner

MOST_FAILED_IN_A_ROW = 3
"""Jobs; each was tried again, so something other than the candidates is wrong."""
MOST_DIVERGED = 5
"""Candidates whose loss is not finite, as long as none has a score, before the search ends."""
DIVERGED_FIX = "check the images, the masks and --weights"
LIMIT_SLACK, LIMIT_SECONDS = 5.0, 300.0
"""A job may take so many times what it should, and so many seconds more."""
OVERTIME_SHARE = 0.25
"""Of the budget, or `LIMIT_SECONDS`, whichever is more: what a job may take beyond the end of the budget."""
HERE = "this process"

logger = logging.getLogger(__name__)


class StopEvent(Protocol):
    """The part of `threading.Event` that runners need."""

    def is_set(self) -> bool:
        """Return whether to stop."""


class Delivery:
    """The exchange of jobs and results with a planner and its observers.

    `on_start` is called with each job and `on_result` with each result, after the planner. `spent` returns the spent
    share of the budget.

    A job that fails is tried again (`Failures`) before the planner and the observers are told. Several in a row that
    failed for good mean that something other than the candidates is wrong, and end the search; so does a loss that is
    never finite. Relaxations are few: the planner ends the search if all of them fail.
    """

    def __init__(
        self,
        planner: Planner,
        on_start: Callable[[Job], None],
        on_result: Callable[[JobResult], None],
        spent: Callable[[], float],
    ) -> None:
        self.planner, self.failures = planner, Failures()
        self._on_start, self._on_result, self._spent = on_start, on_result, spent
        self._to_try_again: list[JobResult] = []
        self._devices: dict[int, str] = {}
        self._with_features: set[str] = set()
        self._failed_in_a_row = 0
        self._any_scored = False
        self._latest_failure: str | None = None

    def next_job(self, device: str = HERE) -> Job | None:
        """Return a job for a device: one to be tried again, else the planner's next, whose start observers are told."""
        spent = self._spent()
        for result in self._to_try_again[:]:
            if not self.planner.has_time(result.job, spent):
                self._to_try_again.remove(result)
                self.settle(result)
            elif self.failures.may_try_again(result.job, device):
                self._to_try_again.remove(result)
                self._devices[result.job.number] = device
                return result.job
        job = self.planner.next_job(spent)
        if job is not None:
            self._devices[job.number] = device
            self._on_start(job)
        return job

    def deliver(self, result: JobResult, device: str = HERE) -> None:
        """Take a result from a device; raises `RuntimeError` if nothing succeeds any more."""
        job = result.job
        self._devices.pop(job.number, None)
        if not result.is_failure:
            if job.task == "proxy":
                self._with_features.add(device)
            self.failures.succeed(job, device)
            self.settle(result)
            return
        again = self.failures.fail(job, device)
        if device in self.failures.kept_out:
            logger.warning("%s gets no more jobs, as whatever it gets fails", device)
        if again and self.planner.has_time(job, self._spent()):
            logger.info("job %d is tried again, as it failed on %s: %s", job.number, device, result.reason)
            self._to_try_again.append(result)
        else:
            self.settle(result)

    def settle(self, result: JobResult) -> None:
        """Tell the planner and the observers a result that is final; raises as `deliver` does."""
        self.planner.tell(result)
        self._on_result(result)
        if result.job.task != "relax":
            self._check(result)

    def limit_seconds(self, job: Job) -> float:
        """Return the time after which a job counts as hung; infinite as long as nobody knows what it should take.

        The first short run on a device may have to store features before.
        """
        clock, times = self.planner.clock, self.planner.times
        expected = max(clock.expected(job.kind), times.seconds(job) if times else 0.0)
        if times and job.task == "proxy" and self._devices.get(job.number) not in self._with_features:
            expected += times.storing_seconds
        overtime = max(LIMIT_SECONDS, OVERTIME_SHARE * clock.total_seconds)
        left = clock.total_seconds * max(0.0, 1 - self._spent()) if math.isfinite(clock.total_seconds) else math.inf
        return min(LIMIT_SLACK * expected + LIMIT_SECONDS if expected else math.inf, left + overtime)

    def end(self) -> None:
        """Raise `RuntimeError` if the search has ended without a score although something was trained."""
        self._check_divergence(1)
        if not self._any_scored and self._latest_failure is not None:
            raise RuntimeError(f"no candidate could be trained, the last failed with: {self._latest_failure}")

    def _check(self, result: JobResult) -> None:
        """Raise `RuntimeError` if this result shows that the search leads nowhere."""
        # As long as nothing has a score, a device that is too small for a candidate may be so for all.
        failed = result.is_failure or not (result.was_trained or self._any_scored)
        self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
        self._latest_failure = self._latest_failure if result.was_trained else result.reason
        if result.job.task == "prepare" and not result.was_trained:
            raise RuntimeError(f"training the handcrafted reference failed: {result.reason}")
        if result.job.task == "prepare" and result.outcomes[0].status == "nonfinite":
            step = result.outcomes[0].step
            raise RuntimeError(f"the loss of the handcrafted reference is not finite at step {step}; {DIVERGED_FIX}")
        if self._failed_in_a_row == MOST_FAILED_IN_A_ROW and self._spent() < 1:
            raise RuntimeError(f"{MOST_FAILED_IN_A_ROW} jobs in a row failed, the last with: {result.reason}")
        self._check_divergence(MOST_DIVERGED)

    def _check_divergence(self, fewest: int) -> None:
        if self._any_scored:
            return
        tried = [trial for trial in self.planner.trials if trial.proxy or trial.full]
        self._any_scored = any(trial.decisive for trial in tried)
        diverged = sum(trial.status(0) == "nonfinite" for trial in tried)
        if not self._any_scored and diverged >= fewest:
            every = "all" if diverged == len(tried) else f"{diverged} of"
            raise RuntimeError(f"the loss of {every} {len(tried)} candidates is not finite; {DIVERGED_FIX}")


def run_guarded(worker: Worker, job: Job) -> JobResult:
    """Run a job; a `RuntimeError`, such as a lack of GPU memory, is a failure of the job.

    Other exceptions, such as a full disk, are neither a candidate's fault nor a device's.
    """
    start = time.perf_counter()
    try:
        return worker.run(job)
    except RuntimeError as error:
        logger.debug("job %d failed", job.number, exc_info=True)
        return JobResult.failed(job, f"{type(error).__name__}: {error}", time.perf_counter() - start)


def late(job: Job, seconds: float) -> JobResult:
    """Make the result of a job that took longer than it may."""
    return JobResult.failed(job, f"it took longer than {seconds:.0f} s", seconds)
