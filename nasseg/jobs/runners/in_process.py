"""Runs jobs one after another in this process: for tests, for debugging, and where Ray is not wanted."""

from __future__ import annotations

from collections.abc import Callable

from nasseg.jobs.runners.dispatch import Delivery, StopEvent, run_guarded
from nasseg.planning.job import Job, JobResult, Worker
from nasseg.planning.planner import Planner


def run_jobs(
    planner: Planner,
    make_worker: Callable[[], Worker],
    *,
    on_start: Callable[[Job], None],
    on_result: Callable[[JobResult], None],
    spent: Callable[[], float],
    stop: StopEvent,
) -> None:
    """Run the planner's jobs until it has no more, or `stop` is set: then the running job is finished first.

    `on_start` is told each job and `on_result` each result, after the planner. `spent` is the share of the budget that
    is spent.
    """
    delivery = Delivery(planner, on_start, on_result, spent)
    worker = make_worker()
    while not stop.is_set():
        job = delivery.next_job()
        if job is None:
            return
        delivery.deliver(run_guarded(worker, job))
