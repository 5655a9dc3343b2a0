"""A runner in this process, one job after another: for tests, for debugging, and to do without Ray."""

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
    """Run the planner's jobs until there are no more or `stop` is set; a running job is finished first.

    `on_start` is called with each job and `on_result` with each result, after the planner. `spent` returns the spent
    share of the budget.
    """
    delivery = Delivery(planner, on_start, on_result, spent)
    worker = make_worker()
    while not stop.is_set():
        job = delivery.next_job()
        if job is None:
            return
        delivery.deliver(run_guarded(worker, job))
