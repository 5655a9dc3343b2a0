import math
import time
from collections.abc import Callable
from fractions import Fraction
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasseg.cost.timing import (
    WARMUP_ROUNDS,
    StopRule,
    apart_from_pace,
    clock_for,
    median_interval,
    percentile,
    time_interleaved,
)

CPU = torch.device("cpu")


class Clock:
    """A clock that moves only as the runs say, and who ran when."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, ""

    def __call__(self) -> float:
        return self.now

    def run(self, name: str, *times_ms: float) -> Callable[[], None]:
        """A callable whose n-th call takes the n-th of `times_ms`, over and over."""
        calls = 0

        def call() -> None:
            nonlocal calls
            self.now += times_ms[calls % len(times_ms)] / 1000
            self.log += name
            calls += 1

        return call


def test_all_take_their_turn_in_every_round() -> None:
    clock = Clock()
    stop = StopRule(fewest_rounds=6, most_rounds=6)
    time_interleaved({"a": clock.run("a", 2), "b": clock.run("b", 3)}, CPU, stop=stop, clock=clock)
    assert clock.log == "ab" * (WARMUP_ROUNDS + 6)


def test_the_median_its_interval_and_p95_are_those_of_the_runs_after_warm_up() -> None:
    clock = Clock()
    warmup = [1000.0] * WARMUP_ROUNDS
    run = clock.run("a", *warmup, *range(20, 0, -1))
    timing = time_interleaved({"a": run}, CPU, stop=StopRule(most_rounds=20), clock=clock)["a"]
    assert timing.median_ms == pytest.approx(10.5)
    assert timing.p95_ms == pytest.approx(19)
    assert (timing.low_ms, timing.high_ms) == (pytest.approx(6), pytest.approx(15))  # tables: the 6th and 15th of 20
    assert timing.relative_interval == pytest.approx(4.5 / 10.5)
    assert (timing.runs, timing.calls_per_run, timing.settled) == (20, 1, False)
    assert timing.drift == pytest.approx(7.5 / 10.5)  # the first quarter's median is 18, the last one's 3


def test_short_calls_are_looped_and_counted_singly() -> None:
    clock = Clock()
    timing = time_interleaved({"a": clock.run("a", 0.3)}, CPU, stop=StopRule(most_rounds=20), clock=clock)["a"]
    assert timing.calls_per_run == 4
    assert timing.median_ms == pytest.approx(0.3)
    assert len(clock.log) == WARMUP_ROUNDS + 20 * 4
    assert timing.settled


def test_it_stops_when_the_last_interval_is_tight() -> None:
    clock = Clock()
    restless = clock.run("r", *[10.5] * WARMUP_ROUNDS, 11.5, *[10.5] * 20)
    runs = {"still": clock.run("s", 10.0), "restless": restless}
    timings = time_interleaved(runs, CPU, stop=StopRule(fewest_rounds=3), clock=clock)
    assert all(timing.settled for timing in timings.values())
    assert [timing.runs for timing in timings.values()] == [9, 9]  # the fewest whose interval leaves out the slowest
    early = time_interleaved(runs, CPU, stop=StopRule(fewest_rounds=3, most_rounds=5), clock=clock)
    assert not any(timing.settled for timing in early.values())


def test_it_takes_its_time() -> None:
    clock = Clock()
    timings = time_interleaved({"a": clock.run("a", 10.0)}, CPU, stop=StopRule(least_seconds=1.0), clock=clock)
    assert timings["a"].runs == pytest.approx(100, abs=1)


def test_it_gives_up_at_the_limit_and_says_so() -> None:
    clock = Clock()
    stop = StopRule(limit_seconds=1.0)
    timing = time_interleaved({"a": clock.run("a", 10.0, 20.0)}, CPU, stop=stop, clock=clock)["a"]
    assert timing.runs == pytest.approx(67, abs=1)
    assert not timing.settled


def test_the_pace_of_a_round_is_no_property_of_what_runs_in_it() -> None:
    clock, paces = Clock(), [1.0, 1.5, 2.0, 1.5, 1.0]
    paced = [1.0] * WARMUP_ROUNDS + paces
    own_ms = {name: 2.0 + place for place, name in enumerate("abcdefgh")}
    runs = {name: clock.run(name, *(ms * pace for pace in paced)) for name, ms in own_ms.items()}
    timings = time_interleaved(runs, CPU, stop=StopRule(fewest_rounds=5, most_rounds=5), clock=clock)
    for name, timing in timings.items():
        assert timing.median_ms == pytest.approx(1.5 * own_ms[name])
        assert timing.high_ms - timing.low_ms == pytest.approx(0)
        assert timing.p95_ms == pytest.approx(2 * own_ms[name])
        assert timing.drift > 0


def test_too_few_have_no_common_pace() -> None:
    clock = Clock()
    runs = {name: clock.run(name, *[2.0] * WARMUP_ROUNDS, 2.0, 4.0, 6.0) for name in "ab"}
    timing = time_interleaved(runs, CPU, stop=StopRule(fewest_rounds=3, most_rounds=3), clock=clock)["a"]
    assert (timing.low_ms, timing.median_ms, timing.high_ms) == pytest.approx((2, 4, 6))


@given(st.lists(st.floats(0.1, 100), min_size=30, max_size=60), st.integers(0, 1000))
def test_what_was_timed_at_several_paces_is_told_apart_from_them(own_ms: list[float], seed: int) -> None:
    rng, count, groups = Random(seed), len(own_ms), []
    for _ in range(3):
        order = rng.sample(range(count), count)
        for start in range(0, count, 10):
            pace = rng.uniform(1, 3)
            groups.append([(place, own_ms[place] * pace) for place in order[start : start + 10]])
    found = apart_from_pace(groups, count)
    ratios = [ms / own for ms, own in zip(found, own_ms, strict=True)]
    assert ratios == pytest.approx([ratios[0]] * count)
    assert 1 <= ratios[0] <= 3


def coverage(count: int, rank: int) -> Fraction:
    """How often the `rank`-th smallest and `rank`-th largest of `count` values enclose the median."""
    return 1 - 2 * Fraction(sum(math.comb(count, k) for k in range(rank)), 2**count)


@given(st.integers(6, 1200))
def test_the_interval_is_the_tightest_that_holds_the_median_often_enough(count: int) -> None:
    low, high = median_interval(range(1, count + 1))
    assert high == count + 1 - low
    assert coverage(count, int(low)) >= Fraction(95, 100) > coverage(count, int(low) + 1)


def test_few_values_have_no_interval() -> None:
    assert median_interval([1.0] * 5) == (-math.inf, math.inf)
    assert median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]) == (1.0, 6.0)


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile(range(1, 101), 0.95) == 95
    assert percentile([7.0], 0.95) == 7.0
    assert percentile([2.0, 1.0], 0.5) == 1.0


def test_one_thread_that_computes_alone_is_timed_by_its_own_clock() -> None:
    assert clock_for(CPU, "eager", 1) is time.thread_time
    assert clock_for(CPU, "eager", 2) is time.perf_counter
    assert clock_for(CPU, "onnxruntime", 1) is time.thread_time
    assert clock_for(CPU, "openvino", 1) is time.perf_counter
    assert clock_for(torch.device("cuda"), "eager", 1) is time.perf_counter
