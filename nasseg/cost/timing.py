"""Timing calls that take turns, until the confidence interval of every median is tight."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from nasseg.allocator import keep_freed_memory, without_garbage_collection
from nasseg.cost.calibration import Array

CONFIDENCE = 0.95
ON_ITS_CALLERS_THREAD = frozenset({"eager", "compile", "onnxruntime"})
"""Backends that compute on the thread that calls them, if they may use one."""
LEAST_RUN_MS = 1.0
"""Shorter calls are looped until a run takes this long, so that clock and synchronisation hardly matter."""
WARMUP_ROUNDS = 3
FEWEST_FOR_PACE = 8
"""Callables that take turns before their common pace is told apart from what each of them takes."""
SWEEPS = 8
"""Of estimating the pace of each round or group, then what each thing takes at an even pace."""
LEAST_DEVIATION = 0.01
"""Of a time, as a share, below which errors count by their squares."""


class StopRule(BaseModel):
    """The end of a timing: all intervals within ± `relative_interval` of their median, or a limit reached.

    The intervals are checked only after `fewest_rounds` rounds and `least_seconds`: a machine's speed also changes from
    second to second, which a short timing misses.
    """

    model_config = ConfigDict(frozen=True)

    relative_interval: PositiveFloat = 0.01
    fewest_rounds: PositiveInt = 20
    least_seconds: float = Field(default=0.0, ge=0)
    most_rounds: PositiveInt = 2000
    limit_seconds: PositiveFloat = 30.0


class Timing(BaseModel):
    """Milliseconds per call: median, 95th percentile, and the 95 % confidence interval of the median, `low` to `high`.

    All but the percentile are at an even pace (`time_interleaved`). A run is `calls_per_run` calls in a row. `settled`
    says whether the interval became as tight as requested. `drift` is the largest distance of the median of a quarter
    of the runs, in order of time, from that of all, as a share: the interval, which assumes independent runs, misses
    it.
    """

    model_config = ConfigDict(frozen=True)

    median_ms: float
    p95_ms: float
    low_ms: float
    high_ms: float
    runs: int
    calls_per_run: int
    settled: bool
    drift: float = 0.0

    @property
    def relative_interval(self) -> float:
        """The further of the interval's two ends from the median, as a share of the median."""
        return max(self.high_ms - self.median_ms, self.median_ms - self.low_ms) / self.median_ms


def clock_for(device: torch.device, backend: str, threads: int) -> Callable[[], float]:
    """Choose the clock for runs of a backend: the thread's own if it computes all alone, else that of the wall.

    A thread's own time leaves out the waits for a core that other programs take; alone, it is the time that passes.
    """
    own = device.type == "cpu" and threads == 1 and backend in ON_ITS_CALLERS_THREAD
    return time.thread_time if own else time.perf_counter


def time_interleaved(
    runs: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    stop: StopRule | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time each callable, by name. All take turns in every round, so that drift affects all alike.

    A round's pace is how much longer its runs took than they typically do, by their median. Where several callables
    take turns, their times are divided by it: what slows all of them down, a busy neighbour or another clock speed, is
    none of their properties. On a rented core, rounds of 30 networks took 4.9 to 9.0 ms within a minute.

    After warm-up, rounds continue until all satisfy `stop`. `device` is synchronised before the clock (in seconds) is
    read.
    """
    stop = stop or StopRule()
    if device.type == "cpu":
        keep_freed_memory()

    def time_ms(run: Callable[[], object], calls: int) -> float:
        _synchronise(device)
        start = clock()
        for _ in range(calls):
            run()
        _synchronise(device)
        return (clock() - start) * 1000 / calls

    times_ms: dict[str, list[float]] = {name: [] for name in runs}
    with without_garbage_collection():
        warmup_ms = [{name: time_ms(run, 1) for name, run in runs.items()} for _ in range(WARMUP_ROUNDS)][-1]
        calls = {name: max(1, math.ceil(LEAST_RUN_MS / max(ms, 1e-6))) for name, ms in warmup_ms.items()}
        start = clock()
        for count in range(1, stop.most_rounds + 1):
            for name, run in runs.items():
                times_ms[name].append(time_ms(run, calls[name]))
            elapsed = clock() - start
            if elapsed >= stop.limit_seconds:
                break
            if count >= stop.fewest_rounds and elapsed >= stop.least_seconds and _all_tight(times_ms, stop):
                break
    return _timings(times_ms, calls, stop)


def apart_from_pace(groups: Sequence[Sequence[tuple[int, float]]], count: int) -> list[float]:
    """Estimate the times of `count` things that were timed in several groups, each at a pace of its own.

    A group holds things, by number, with their times. The logarithm of a time is that of the thing plus that of the
    group's pace, with the least absolute error (by reweighted least squares, as Huber does, Robust Statistics, 1981,
    §7.8): groups must be mixed differently. What is returned is as fast as things typically were in the fastest of
    their groups, as what else runs on a machine only adds time.
    """
    logs, weights = np.zeros((2, count, len(groups)))
    for number, group in enumerate(groups):
        for thing, ms in group:
            logs[thing, number], weights[thing, number] = math.log(ms), 1.0
    timed = weights > 0
    for _ in range(SWEEPS):
        shares = weights / weights.sum(1, keepdims=True)
        means = (shares * logs).sum(1, keepdims=True)
        laplacian = np.diag(weights.sum(0)) - weights.T @ shares
        pace = np.linalg.lstsq(laplacian, (weights * (logs - means)).sum(0), rcond=None)[0]
        typical = (shares * (logs - pace)).sum(1, keepdims=True)
        weights = timed / np.maximum(np.abs(logs - pace - typical), LEAST_DEVIATION)
    fastest = np.where(timed, logs, np.inf).min(1, keepdims=True)
    return [float(ms) for ms in np.exp(typical + np.median(fastest - typical))[:, 0]]


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Compute a confidence interval of the median that independent `values` are drawn around, for any distribution.

    Its ends are order statistics: the k-th smallest and k-th largest value, with k as large as the binomial
    distribution of the number of values below the median allows (Hahn and Meeker, Statistical Intervals, §5.2). Fewer
    than six values have no such interval at 95 %; theirs is infinite.
    """
    rank = _interval_rank(len(values), confidence)
    if rank == 0:
        return -math.inf, math.inf
    ordered = sorted(values)
    return ordered[rank - 1], ordered[-rank]


@cache
def _interval_rank(count: int, confidence: float) -> int:
    """Find the largest k for which at most (1 - confidence) / 2 of Binomial(count, 1/2) lies below k, else 0."""
    allowed = int(Fraction((1 - confidence) / 2) * 2**count)
    rank, ways, below = 0, 1, 1
    while below <= allowed:
        ways = ways * (count - rank) // (rank + 1)
        rank += 1
        below += ways
    return rank


def _all_tight(times_ms: Mapping[str, Sequence[float]], stop: StopRule) -> bool:
    calls = dict.fromkeys(times_ms, 1)
    return all(timing.settled for timing in _timings(times_ms, calls, stop).values())


def _timings(
    times_ms: Mapping[str, Sequence[float]], calls_per_run: Mapping[str, int], stop: StopRule
) -> dict[str, Timing]:
    even = _at_even_pace(np.array(list(times_ms.values())))
    return {
        name: _timing(own, sorted(times.tolist()), calls_per_run[name], stop)
        for (name, own), times in zip(times_ms.items(), even, strict=True)
    }


def _at_even_pace(times_ms: Array) -> Array:
    """Divide the times of each round, a column, by its pace; each callable has a row."""
    pace = np.ones(times_ms.shape[1])
    if len(times_ms) >= FEWEST_FOR_PACE:
        for _ in range(SWEEPS):
            typical = np.median(times_ms / pace, axis=1, keepdims=True)
            pace = np.median(times_ms / typical, axis=0)
    even: Array = times_ms / (pace / np.median(pace))
    return even


def _timing(times_ms: Sequence[float], even_ms: Sequence[float], calls_per_run: int, stop: StopRule) -> Timing:
    """Sum up the runs of a callable, by their times in order and by those at an even pace, sorted."""
    median, raw_median = statistics.median(even_ms), statistics.median(times_ms)
    low, high = median_interval(even_ms)
    return Timing(
        median_ms=median,
        p95_ms=percentile(times_ms, 0.95),
        low_ms=max(low, even_ms[0]),
        high_ms=min(high, even_ms[-1]),
        runs=len(times_ms),
        calls_per_run=calls_per_run,
        settled=max(high - median, median - low) <= stop.relative_interval * median,
        drift=max(abs(statistics.median(part) - raw_median) for part in _quarters(times_ms)) / raw_median,
    )


def _quarters(values: Sequence[float]) -> list[Sequence[float]]:
    size = math.ceil(len(values) / 4)
    return [values[start : start + size] for start in range(0, len(values), size)]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
