"""The number of threads of this process, and how they wait for each other on a machine shared with other programs.

The threads of an operator meet at its end, a thousand times per training step. libgomp's threads wait there by
spinning. If another program holds the core of a late thread, the others spin until the scheduler takes that program off
it, and a step takes up to fifty times as long. Three remedies, for Linux:

- `limit_spinning`: waiting threads spin briefly, then sleep;
- `choose_threads`: a run that starts beside others has one thread per free core, until its end;
- `sharing_cores`: if others come later, the threads gather on fewer cores and stop spinning. Their number stays the
  same, and so do sums, to the last bit.

A user's own OMP_NUM_THREADS, OMP_WAIT_POLICY, GOMP_SPINCOUNT and OMP_PROC_BIND take precedence.
"""

from __future__ import annotations

import ctypes
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SPINS = "3000"
"""Spins of a waiting thread before it sleeps, some tens of microseconds; libgomp's default is 300000."""
SHARED_CORE = 0.5
"""A core is taken if others use more than this share of it."""
WINDOW_S = 0.25
"""How long the use of the cores is watched before a decision: 25 of the system's ticks."""
_STAT, _MAPS, _TASKS = Path("/proc/stat"), Path("/proc/self/maps"), Path("/proc/self/task")
_BINDINGS = ("OMP_WAIT_POLICY", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")
_random = random.Random(os.urandom(8))  # processes of the same seed must not choose alike


def limit_spinning() -> None:
    """Let libgomp's threads spin briefly in this process, if torch is not loaded yet, and in its child processes."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def choose_threads() -> int | None:
    """Count the cores that others leave free, at least one; `None` if the user chose, or if it is unknown.

    Watches the machine for a quarter of a second.
    """
    cores = _own_cores()
    if "OMP_NUM_THREADS" in os.environ or not cores or not _STAT.exists():
        return None
    use = CoreUse(cores)
    time.sleep(WINDOW_S)
    return free_cores(len(cores), use.others())


def free_cores(cores: int, others: float) -> int:
    """Count the free ones of `cores` if other programs keep `others` busy on average; at least one."""
    return max(1, int(cores - others + SHARED_CORE))


def cores_for(threads: int, cores: int, others: float) -> int:
    """Choose on how many cores the threads run best beside `others`: all, or the fewest that share them evenly."""
    free = free_cores(cores, others)
    if threads <= free:
        return cores
    a_core = -(-threads // free)
    return -(-threads // a_core)


class CoreUse:
    """The use of some cores by other programs, since this was made; Linux only."""

    def __init__(self, cores: frozenset[int]) -> None:
        self._cores = cores
        self._start = (_worked_seconds(cores), time.process_time(), time.perf_counter())

    @property
    def seconds(self) -> float:
        """The time watched so far."""
        return time.perf_counter() - self._start[2]

    def shares(self) -> dict[int, float]:
        """Compute the share of each core that was used, including by this process."""
        worked = _worked_seconds(self._cores)
        return {core: min(1.0, (worked[core] - at) / self.seconds) for core, at in self._start[0].items()}

    def own(self) -> float:
        """Compute how many cores' worth of time this process took."""
        return (time.process_time() - self._start[1]) / self.seconds

    def others(self) -> float:
        """Compute how many cores' worth of time the other processes took."""
        return max(0.0, sum(self.shares().values()) - self.own())


@contextmanager
def sharing_cores(threads: int) -> Iterator[Callable[[], None]]:
    """Keep the process's threads out of the way of others: the block calls the yielded function after every step.

    `threads` is the number per operator. At the end the process may use all its cores again. Nested blocks share the
    outer one. Does nothing for a single thread, if the user bound threads or chose how they wait, or without libgomp.
    """
    global _active
    if _active is not None or not can_gather(threads, os.environ):
        yield (lambda: None) if _active is None else _active.look
        return
    _active = Gathering(threads, _own_cores())
    try:
        yield _active.look
    finally:
        _active.spread()
        _active = None


def can_gather(threads: int, environment: Mapping[str, str]) -> bool:
    """Check that a process's threads may be gathered: there are several, and the user has not configured them."""
    ours = environment.get("GOMP_SPINCOUNT", SPINS) == SPINS and not any(name in environment for name in _BINDINGS)
    return ours and threads > 1 and _STAT.exists() and _libgomp() is not None


class Gathering:
    """The threads of this process, spread over its cores or gathered on some of them."""

    def __init__(self, threads: int, cores: frozenset[int]) -> None:
        self.on = cores
        self._threads, self._cores = threads, cores
        self._use = CoreUse(cores)
        self._brief = _BriefWaits()

    def look(self) -> None:
        """Gather, move or spread the threads if the last quarter of a second calls for it."""
        if self._use.seconds < WINDOW_S:
            return
        count = cores_for(self._threads, len(self._cores), self._use.others())
        if count == len(self._cores):
            self.spread()
        elif count != len(self.on) or (self._crowded() and _random.random() < 0.5):
            self._gather(count)
        self._use = CoreUse(self._cores)

    def spread(self) -> None:
        """Give the threads all cores, and let them spin again."""
        if self.on != self._cores:
            self._move(self._cores)
            self._brief.end()

    def _crowded(self) -> bool:
        """Check whether others use the cores that the threads were gathered on while one elsewhere is free."""
        shares = self._use.shares()
        elsewhere = [share for core, share in shares.items() if core not in self.on]
        return self._use.own() < 0.8 * len(self.on) and min(elsewhere, default=1.0) < SHARED_CORE

    def _gather(self, count: int) -> None:
        """Take the cores that others use least, ties at random, so that two such processes take different ones."""
        shares = self._use.shares()
        own = 1.0 if len(self.on) < len(self._cores) else 0.0
        by_use = sorted(
            self._cores, key=lambda core: (round(shares[core] + own * (core in self.on), 1), _random.random())
        )
        self._brief.begin(self._threads, len(self._cores))
        self._move(frozenset(by_use[:count]))

    def _move(self, cores: frozenset[int]) -> None:
        self.on = cores
        for task in _TASKS.iterdir():
            _set_affinity(int(task.name), cores)


class _BriefWaits:
    """A state in which libgomp's waiting threads sleep almost at once.

    libgomp spins for no more than a microsecond or two while it has more threads than there are cores. So a thread of
    ours keeps a team of idle ones, which end with it.
    """

    def __init__(self) -> None:
        self._over: threading.Event | None = None
        self._holder: threading.Thread | None = None

    def begin(self, threads: int, cores: int) -> None:
        if self._over is not None:
            return
        over, ready = threading.Event(), threading.Event()

        def hold() -> None:
            libgomp = _libgomp()
            assert libgomp is not None
            idle = ctypes.cast(libgomp.omp_get_thread_num, ctypes.c_void_p)
            libgomp.GOMP_parallel(idle, None, ctypes.c_uint(max(2, cores - threads + 2)), ctypes.c_uint(0))
            ready.set()
            over.wait()

        self._over, self._holder = over, threading.Thread(target=hold, name="nasseg-threads", daemon=True)
        self._holder.start()
        ready.wait()

    def end(self) -> None:
        if self._over is not None and self._holder is not None:
            self._over.set()
            self._holder.join()
            self._over = self._holder = None


_active: Gathering | None = None


def _own_cores() -> frozenset[int]:
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def _set_affinity(task: int, cores: frozenset[int]) -> None:
    try:
        os.sched_setaffinity(task, cores)
    except OSError:  # it has ended, or the system does not allow it
        return


def _spread_child() -> None:
    """Let a process forked while the threads are gathered, such as a reader of images, use all cores."""
    global _active
    if _active is not None:
        _set_affinity(0, _active._cores)
        _active = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_spread_child)


def _libgomp() -> ctypes.CDLL | None:
    """Return the loaded libgomp, if there is one and no other OpenMP."""
    if not _MAPS.exists():
        return None
    paths = {line.split()[-1] for line in _MAPS.read_text().splitlines() if line.endswith((".so", ".so.1", ".so.5"))}
    found = {path for path in paths if Path(path).name.startswith("libgomp")}
    other = {path for path in paths if Path(path).name.startswith(("libiomp5", "libomp"))}
    return ctypes.CDLL(found.pop()) if len(found) == 1 and not other else None


def _worked_seconds(cores: frozenset[int]) -> dict[int, float]:
    """Read the seconds that each core has worked since the machine started."""
    tick = os.sysconf("SC_CLK_TCK")
    worked = {}
    for line in _STAT.read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _idle, _iowait, *interrupts = map(int, fields[:7])
            worked[int(name[3:])] = (user + nice + system + sum(interrupts)) / tick
    return worked
