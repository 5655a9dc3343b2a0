"""Starting Ray on this machine or joining a cluster, with as little memory and output as possible."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
import torch
from ray._private import ray_constants

from nasseg.planning.machine import Machine

PULSE_SECONDS = 2.0
MOST_SILENT_SECONDS, MOST_SILENT_SECONDS_OF_A_CLUSTER = 5.0, 30.0
"""How long Ray may take no connections; after 60 s it ends this process."""
OBJECT_STORE_BYTES = 80 * 2**20


class RayEndedError(RuntimeError):
    """Ray runs no more, and answers nothing: who asks it is ended with it."""


@contextmanager
def session(address: str | None, cores: int = 1, gpu: int | None = None) -> Iterator[Callable[[], None]]:
    """Join the cluster at `address` during the block, or start Ray for so many `cores` of this machine.

    Of this machine's GPUs, Ray gives out that of the index `gpu`, or all. Yields a function that raises `RayEndedError`
    if Ray has ended: Ray itself would end this process without a word. Raises `ValueError` for an address that a search
    cannot join.
    """
    environment = {}
    start: dict[str, Any] = {"address": address}
    if address is None:
        # The system kills workers first, too, as memory runs short; Ray's own monitor would also for other programs.
        environment["RAY_memory_monitor_refresh_ms"] = "0"
        # The workers find what this process finds.
        environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        start = {
            "address": "local",
            "num_cpus": cores,
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = _visible(gpu)
            start["num_gpus"] = 1
    elif address.startswith("ray://"):
        raise ValueError(
            f"ray_address is {address!r}, but the search must run on a machine of the cluster: start it there, with "
            "HOST:PORT of the head"
        )
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        with _own_signals(), _loopback(alone=address is None):
            ray.init(**start, log_to_driver=False, configure_logging=False)
        yield _Pulse(MOST_SILENT_SECONDS if address is None else MOST_SILENT_SECONDS_OF_A_CLUSTER).check
    finally:
        ray.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def machines(address: str) -> tuple[Machine, ...]:
    """Return the machines of the cluster at `address` that have cores for Ray."""
    with session(address):
        found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    of = [Machine(int(resources.get("CPU", 0)), int(resources.get("GPU", 0))) for resources in found]
    return tuple(machine for machine in of if machine.cores)


def _visible(gpu: int) -> str:
    """Name the GPU of that index as other processes know it; this one keeps all that it sees."""
    if torch.cuda.is_available():
        torch.cuda.current_device()
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return seen.split(",")[gpu] if seen else str(gpu)


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
        """Raise `RayEndedError` if one of them has been silent for too long."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + PULSE_SECONDS
        for name, address in self._addresses.items():
            if _takes_connections(address):
                self._seen[name] = now
            elif now - self._seen[name] > self._most_silent_seconds:
                raise RayEndedError(f"Ray has ended: {name} cannot be reached at {':'.join(map(str, address))}")


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
