"""Carrying jobs from a planner to a worker and their results back, for all runners."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from nasseg.planning.job import Job, JobResult, Worker
from nasseg.planning.planner import Planner

_FAILURES_IN_A_ROW = 3

logger = logging.getLogger(__name__)


class StopEvent(Protocol):
    """The part of `threading.Event` that runners need."""

    def is_set(self) -> bool:
        """Return whether to stop."""


class Delivery:
    """The exchange of jobs and results with a planner and its observers.

    `on_start` is called with each job and `on_result` with each result, after the planner. `spent` returns the spent
    share of the budget.

    Single failed jobs are recorded and skipped; several in a row mean that something other than the candidates is
    wrong, and end the search. Relaxations are few: the planner ends the search if all of them fail.
    """

    def __init__(
        self,
        planner: Planner,
        on_start: Callable[[Job], None],
        on_result: Callable[[JobResult], None],
        spent: Callable[[], float],
    ) -> None:
        self.planner = planner
        self._on_start, self._on_result, self._spent = on_start, on_result, spent
        self._failures = 0

    def next_job(self) -> Job | None:
        """Take the planner's next job, and tell the observers that it starts."""
        job = self.planner.next_job(self._spent())
        if job is not None:
            self._on_start(job)
        return job

    def deliver(self, result: JobResult) -> None:
        """Tell the planner and the observers; raises `RuntimeError` if nothing succeeds any more."""
        self.planner.tell(result)
        self._on_result(result)
        if result.job.task == "relax":
            return
        failed = all(outcome.status == "failed" for outcome in result.outcomes)
        self._failures = self._failures + 1 if failed else 0
        message = result.outcomes[0].message
        if failed and result.job.task == "prepare":
            raise RuntimeError(f"training the handcrafted reference failed: {message}")
        if self._failures == _FAILURES_IN_A_ROW:
            raise RuntimeError(f"{_FAILURES_IN_A_ROW} jobs in a row failed, the last with: {message}")


def run_guarded(worker: Worker, job: Job) -> JobResult:
    """Run a job; a `RuntimeError`, such as a lack of GPU memory, counts as a failure of its candidates.

    Other exceptions, such as a full disk, are not a candidate's fault.
    """
    start = time.perf_counter()
    try:
        return worker.run(job)
    except RuntimeError as error:
        logger.debug("job %d failed", job.number, exc_info=True)
        return JobResult.failed(job, f"{type(error).__name__}: {error}", time.perf_counter() - start)
