"""A runner in this process, one job after another: for tests, for debugging, and to do without Ray."""

from __future__ import annotations

from collections.abc import Callable

from nasseg.jobs.runners.dispatch import Delivery, StopEvent, run_guarded
from nasseg.planning.job import Worker


def run_jobs(delivery: Delivery, make_worker: Callable[[], Worker], *, stop: StopEvent) -> None:
    """Run the planner's jobs until there are no more or `stop` is set; a running job is finished first."""
    worker = make_worker()
    while not stop.is_set():
        job = delivery.next_job()
        if job is None:
            return
        delivery.deliver(run_guarded(worker, job))
