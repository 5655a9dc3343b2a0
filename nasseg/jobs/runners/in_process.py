"""A runner in this process, one job after another: for tests, for debugging, and to do without Ray."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from nasseg.jobs.runners.dispatch import Delivery, StopEvent, late, run_guarded
from nasseg.planning.job import Job, JobResult, Worker
from nasseg.train.fit import Stopped


def run_jobs(delivery: Delivery, make_worker: Callable[[], Worker], *, stop: StopEvent) -> None:
    """Run the planner's jobs until there are no more or `stop` is set.

    A running job ends as soon as its worker raises `Stopped`. One that takes too long is interrupted as far as Python
    can: while it waits, but not inside an operation of a library, for which the search would need processes.

    Raises `RuntimeError` after an error that leaves a GPU unusable to this process.
    """
    worker = make_worker()
    delivery.planner.clock.concurrency = 1  # whatever the plan says, which is for any runner
    while not stop.is_set():
        job = delivery.next_job()
        if job is None:
            return
        try:
            result = _run_in_time(worker, job, delivery.limit_seconds(job))
        except Stopped:
            return
        if _has_lost_the_device(result):
            delivery.settle(result)
            raise RuntimeError(
                f"this process can use the GPU no more ({result.reason}); go on with --resume, which passes this "
                "candidate over, or with --runner ray, which replaces processes"
            )
        delivery.deliver(result)
        if result.is_failure:
            worker = make_worker()


class _TookTooLongError(RuntimeError):
    """Raised in a job that takes longer than it may."""


def _run_in_time(worker: Worker, job: Job, seconds: float) -> JobResult:
    try:
        with _alarm(seconds):
            return run_guarded(worker, job)
    except _TookTooLongError:  # between the job's end and the alarm's
        return late(job, seconds)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise in this thread after so many seconds, if the system can: on POSIX, in the main thread."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if math.isinf(seconds) or not in_main_thread or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TookTooLongError(f"it took longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)


def _has_lost_the_device(result: JobResult) -> bool:
    """Whether the job met an error of CUDA that stays with its process, as all but a lack of memory do."""
    text = (result.reason or "").lower()
    return result.is_failure and "cuda error" in text and "out of memory" not in text
