"""A runner with Ray, on one machine or a cluster: processes that run one job after another."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray import cloudpickle
from ray.exceptions import RayError

from nasseg.jobs.runners.dispatch import Delivery, StopEvent, late, run_guarded
from nasseg.jobs.runners.ray_folder import RayRunFolder
from nasseg.jobs.runners.ray_session import RayEndedError, session
from nasseg.planning.job import Job, JobResult, Worker

POLL_SECONDS = 0.5
"""How soon a stop, a job that takes too long or a lost Ray is seen."""
MOST_FAILED_STARTS = 5
"""Processes that may die one after another before any is ready for a job."""


class RayOptions(BaseModel):
    """The number of jobs at once, their resources, and the cluster to join (`None` starts one on this machine).

    Of this machine's GPUs, jobs run on that of the index `gpu`, or on all. If it `grows`, more jobs run at once while
    the cluster has room for more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int = Field(default=1, ge=1)
    cpus_per_job: int = Field(default=1, ge=1)
    gpus_per_job: float = Field(default=0.0, ge=0)
    gpu: int | None = None
    address: str | None = None
    grows: bool = False


def run_jobs(
    delivery: Delivery,
    make_worker: Callable[..., Worker],
    *,
    stop: StopEvent,
    options: RayOptions,
    run_folder: Path | None = None,
) -> None:
    """Run the planner's jobs until there are no more or `stop` is set; running jobs are then abandoned.

    `make_worker` is sent to the workers' processes, and called with the `run_folder` as all machines reach it if one is
    given; everything else is called in this process and thread. The process of a job that fails, hangs or dies is
    replaced, as it may have lost its device for good.

    Raises `RuntimeError` if Ray itself ends, and what a worker raises that is no failure of its job.
    """
    with ExitStack() as stack:
        check_ray = stack.enter_context(
            session(options.address, options.concurrency * options.cpus_per_job, options.gpu)
        )
        if run_folder is not None:
            reached = RayRunFolder(run_folder)
            stack.push(lambda kind, *_: None if kind is RayEndedError else reached.clean())
            make_worker = partial(make_worker, reached)
        processes = _Processes(delivery, make_worker, options)
        while not stop.is_set():
            processes.hand_out()
            if delivery.planner.done:
                return
            processes.collect()
            check_ray()


class _JobProcess:
    """A process that makes its worker with its first job, and keeps it for the next ones."""

    def __init__(self, make_worker: Callable[[], Worker]) -> None:
        self._make_worker = make_worker
        self._worker: Worker | None = None

    def device(self) -> str:
        """Name what the process computes on: the node and, if it has any, its GPUs."""
        context = ray.get_runtime_context()
        gpus = [str(number) for number in context.get_accelerator_ids().get("GPU", [])]
        return f"node {context.get_node_id()[:8]}" + (f", GPU {'+'.join(gpus)}" if gpus else "")

    def run(self, job: str) -> tuple[str | None, bytes | None]:
        """Run a job, as JSON; returns its result, as JSON, or what it raised, pickled."""
        try:
            if self._worker is None:
                self._worker = self._make_worker()
            return run_guarded(self._worker, Job.model_validate_json(job)).model_dump_json(), None
        except Exception as error:
            return None, _pickled(error)


@dataclass(eq=False)
class _Process:
    """A process as the driver knows it, and what it does: it starts, runs a job or waits for one (no `future`)."""

    actor: Any
    future: Any
    device: str | None = None
    job: Job | None = None
    begun: float = 0.0
    limit_seconds: float = 0.0


class _Processes:
    """The processes of a search, as many as it has jobs at once."""

    def __init__(self, delivery: Delivery, make_worker: Callable[[], Worker], options: RayOptions) -> None:
        self._delivery, self._make_worker, self._options = delivery, make_worker, options
        self._actor = ray.remote(num_cpus=options.cpus_per_job, num_gpus=options.gpus_per_job)(_JobProcess)
        self._failed_starts = 0
        self._processes: list[_Process] = []

    def hand_out(self) -> None:
        """Replace the processes that ended, and give jobs to those that wait.

        One on a device that is kept out gets none, and holds the device, so that no other process is given it.
        """
        while len(self._processes) < self._concurrency():
            actor = self._actor.remote(self._make_worker)
            self._processes.append(_Process(actor, actor.device.remote()))
        kept_out = self._delivery.failures.kept_out
        in_use = [process for process in self._processes if process.device not in kept_out]
        self._delivery.planner.clock.concurrency = max(1, len(in_use))
        for process in in_use:
            if process.future is not None:
                continue
            assert process.device is not None
            if (job := self._delivery.next_job(process.device)) is not None:
                process.job, process.future = job, process.actor.run.remote(job.model_dump_json())
                process.begun, process.limit_seconds = time.monotonic(), self._delivery.limit_seconds(job)

    def _concurrency(self) -> int:
        """Return how many jobs run at once: as planned or, if that may grow, as many as the cluster has room for."""
        options = self._options
        if not options.grows or options.address is None:
            return options.concurrency
        there = ray.cluster_resources()
        room = there.get("CPU", 0) // options.cpus_per_job
        if options.gpus_per_job:
            room = min(room, there.get("GPU", 0) // options.gpus_per_job)
        return max(options.concurrency, int(room))

    def collect(self) -> None:
        """Wait a moment for results, deliver them, and give up jobs that take too long."""
        busy = {process.future: process for process in self._processes if process.future is not None}
        if not busy:
            time.sleep(POLL_SECONDS)
            return
        ready, _ = ray.wait(list(busy), timeout=POLL_SECONDS)
        for future in ready:
            process = busy[future]
            process.future = None
            if process.job is None:
                self._take_in(process, future)
            else:
                self._end_job(process, future)
        for process in self._processes[:]:
            job = process.job
            if job is not None and time.monotonic() - process.begun > process.limit_seconds:
                self._fail(process, late(job, process.limit_seconds))

    def _take_in(self, process: _Process, future: Any) -> None:
        """Note the device of a process that has started."""
        try:
            process.device = ray.get(future)
        except RayError as error:
            self._failed_starts += 1
            if self._failed_starts == MOST_FAILED_STARTS:
                raise RuntimeError(f"no worker process starts, the last died: {_first_sentence(error)}") from None
            self._end(process)
        else:
            self._failed_starts = 0
            self._delivery.failures.join(process.device)

    def _end_job(self, process: _Process, future: Any) -> None:
        """Deliver the result of a process's job; raises what its worker raised."""
        job, device = process.job, process.device
        assert job is not None
        assert device is not None
        try:
            result, error = ray.get(future)
        except RayError as died:
            seconds = time.monotonic() - process.begun
            self._fail(process, JobResult.failed(job, f"its process died: {_first_sentence(died)}", seconds))
            return
        if error is not None:
            raise pickle.loads(error)
        told = JobResult.model_validate_json(result)
        if told.is_failure:
            self._fail(process, told)
        else:
            process.job = None
            self._delivery.deliver(told, device)

    def _fail(self, process: _Process, result: JobResult) -> None:
        """Deliver a failure, and end its process, unless it holds a device that is kept out now."""
        assert process.device is not None
        process.job = process.future = None
        self._delivery.deliver(result, process.device)
        if process.device not in self._delivery.failures.kept_out:
            self._delivery.failures.leave(process.device)
            self._end(process)

    def _end(self, process: _Process) -> None:
        self._processes.remove(process)
        ray.kill(process.actor)


def _first_sentence(error: RayError) -> str:
    """Return the first sentence of a message, of which Ray adds many."""
    return str(error).strip().splitlines()[0].split(". ")[0]


def _pickled(error: Exception) -> bytes:
    try:
        pickled: bytes = cloudpickle.dumps(error)
        pickle.loads(pickled)
    except Exception:
        pickled = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return pickled
