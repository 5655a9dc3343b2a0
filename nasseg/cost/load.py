"""The load that other programs put on a device during a measurement."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch

_STAT = Path("/proc/stat")
BUSY_LOAD = 0.1
"""A device is busy if others use more than this share of it."""


class OthersLoad:
    """A watch on a device; `share` is the part of it that others have used since, 0 to 1, `None` if unknown.

    On a CPU, it is the time that all cores worked, less this process's own (Linux only). On a GPU, it is the
    utilisation at the start, before this process used it (needs the package nvidia-ml-py).
    """

    def __init__(self, device: torch.device) -> None:
        self._gpu = _gpu_utilisation(device) if device.type == "cuda" else None
        self._on_cpu = device.type == "cpu"
        self._start = (_worked_seconds(), time.process_time(), time.perf_counter())

    @property
    def share(self) -> float | None:
        """The share of the device that others have used since the start."""
        worked, own, wall = self._start
        now = _worked_seconds()
        if not self._on_cpu or worked is None or now is None:
            return self._gpu
        others = (now - worked) - (time.process_time() - own)
        cores = os.cpu_count() or 1
        return min(1.0, max(0.0, others / max(time.perf_counter() - wall, 1e-9) / cores))


def _worked_seconds() -> float | None:
    """Return the seconds that all cores together have worked since the machine started."""
    if not _STAT.exists():
        return None
    user, nice, system, _idle, _iowait, *interrupts = map(int, _STAT.read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def _gpu_utilisation(device: torch.device) -> float | None:
    try:
        return torch.cuda.utilization(device) / 100
    except (ImportError, RuntimeError):
        return None
