"""A runner with Ray, on one machine or a cluster: processes that run one job after another."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray import cloudpickle
from ray._private import ray_constants
from ray.exceptions import RayError

from nasseg.jobs.runners.dispatch import Delivery, StopEvent, late, run_guarded
from nasseg.planning.job import Job, JobResult, Worker

POLL_SECONDS = 0.5
"""How soon a stop, a job that takes too long or a lost Ray is seen."""
PULSE_SECONDS = 2.0
MOST_SILENT_SECONDS, MOST_SILENT_SECONDS_OF_A_CLUSTER = 5.0, 30.0
"""How long Ray may take no connections; after 60 s it ends this process."""
OBJECT_STORE_BYTES = 80 * 2**20
MOST_FAILED_STARTS = 5
"""Processes that may die one after another before any is ready for a job."""


class RayOptions(BaseModel):
    """The number of jobs at once, their resources, and the cluster to join (`None` starts one on this machine)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int = Field(default=1, ge=1)
    cpus_per_job: int = Field(default=1, ge=1)
    gpus_per_job: float = Field(default=0.0, ge=0)
    address: str | None = None


def run_jobs(delivery: Delivery, make_worker: Callable[[], Worker], *, stop: StopEvent, options: RayOptions) -> None:
    """Run the planner's jobs until there are no more or `stop` is set; running jobs are then abandoned.

    `make_worker` is sent to the workers' processes; everything else is called in this process and thread. The process
    of a job that fails, hangs or dies is replaced, as it may have lost its device for good.

    Raises `RuntimeError` if Ray itself ends, and what a worker raises that is no failure of its job.
    """
    with running_ray(options) as check_ray:
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
        while len(self._processes) < self._options.concurrency:
            actor = self._actor.remote(self._make_worker)
            self._processes.append(_Process(actor, actor.device.remote()))
        for process in self._processes:
            if process.future is not None or process.device in self._delivery.failures.kept_out:
                continue
            assert process.device is not None
            if (job := self._delivery.next_job(process.device)) is not None:
                process.job, process.future = job, process.actor.run.remote(job.model_dump_json())
                process.begun, process.limit_seconds = time.monotonic(), self._delivery.limit_seconds(job)

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


@contextmanager
def running_ray(options: RayOptions) -> Iterator[Callable[[], None]]:
    """Start or join Ray, with as little memory and output as possible.

    Yields a function that raises `RuntimeError` if Ray has ended: Ray itself would end this process without a word.
    """
    environment = {}
    start: dict[str, Any] = {"address": options.address}
    if options.address is None:
        # The system kills workers first, too, as memory runs short; Ray's own monitor would also for other programs.
        environment["RAY_memory_monitor_refresh_ms"] = "0"
        # The workers find what this process finds.
        environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        start = {
            "address": "local",
            "num_cpus": options.concurrency * options.cpus_per_job,
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with _own_signals(), _loopback(alone=options.address is None):
            ray.init(**start, log_to_driver=False, logging_level=logging.ERROR)
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        yield _Pulse(MOST_SILENT_SECONDS if options.address is None else MOST_SILENT_SECONDS_OF_A_CLUSTER).check
    finally:
        ray.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


class _Pulse:
    """Whether Ray's server and this machine's part of it still take connections."""

    def __init__(self, most_silent_seconds: float) -> None:
        context = ray.get_runtime_context()
        host, port = context.gcs_address.rsplit(":", 1)
        here = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
        self._addresses = {
            "its server": (host, int(port)),
            "its part on this machine": (here["NodeManagerAddress"], here["NodeManagerPort"]),
        }
        self._most_silent_seconds = most_silent_seconds
        self._seen = dict.fromkeys(self._addresses, time.monotonic())
        self._due = 0.0

    def check(self) -> None:
        """Raise `RuntimeError` if one of them has been silent for too long."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + PULSE_SECONDS
        for name, address in self._addresses.items():
            if _takes_connections(address):
                self._seen[name] = now
            elif now - self._seen[name] > self._most_silent_seconds:
                raise RuntimeError(f"Ray has ended: {name} cannot be reached at {':'.join(map(str, address))}")


def _takes_connections(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=PULSE_SECONDS).close()
    except OSError:
        return False
    return True


@contextmanager
def _loopback(alone: bool) -> Iterator[None]:
    """Let Ray listen on the loopback interface only, as it does on macOS, if it runs `alone` on this machine."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = before and not alone
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handlers, in whose place Ray puts its own, which end the process without a word."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)
