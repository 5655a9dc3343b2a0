import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasseg.cost.calibration import Calibration, MeasuredNetwork, PredictionError, non_negative_least_squares

small = st.integers(-5, 5)


def measured(operators_ms: float, nodes: int, latency_ms: float) -> MeasuredNetwork:
    return MeasuredNetwork(operators_ms=operators_ms, nodes=nodes, latency_ms=latency_ms)


def following(rule: Calibration, count: int = 12) -> list[MeasuredNetwork]:
    sizes = [(5.0 + 3 * i, 10 + (7 * i) % 5) for i in range(count)]
    return [measured(ms, nodes, rule.latency_ms(ms, nodes)) for ms, nodes in sizes]


def test_the_rule_behind_the_measurements_is_found() -> None:
    rule = Calibration(scale=0.9, per_node_ms=0.05, fixed_ms=2.0)
    found = Calibration.fit(following(rule))
    assert found.model_dump() == pytest.approx(rule.model_dump())
    assert found.latency_ms(10.0, 20) == pytest.approx(0.9 * 10 + 0.05 * 20 + 2)


def test_no_part_is_negative() -> None:
    found = Calibration.fit([measured(ms, 10, 2 * ms - 1) for ms in (5.0, 6.0, 7.0, 8.0)])
    assert (found.per_node_ms, found.fixed_ms) == (0, 0)
    assert found.scale == pytest.approx(1.85, abs=0.03)


@settings(max_examples=30)
@given(st.lists(st.tuples(small, small, small), min_size=4, max_size=8), st.integers(0, 2**31))
def test_least_squares_are_the_best_of_all_non_negative_coefficients(
    rows: list[tuple[int, int, int]], seed: int
) -> None:
    terms = np.array(rows, dtype=float)
    rng = np.random.default_rng(seed)
    target = rng.normal(size=len(rows))
    found = np.array(non_negative_least_squares(terms, target))
    assert found.min() >= 0
    error = np.sum((terms @ found - target) ** 2)
    for scale, steps in itertools.product((1e-3, 0.1, 1.0), range(20)):
        other = np.maximum(0, found + rng.normal(size=3) * scale)
        assert error <= np.sum((terms @ other - target) ** 2) + 1e-9, steps


def test_errors_by_hand() -> None:
    error = PredictionError.of([11.0, 18.0, 33.0], [10.0, 20.0, 30.0])
    assert (error.networks, error.spearman) == (3, 1.0)
    assert error.mape_percent == pytest.approx(10)
    assert PredictionError.of([5.0, 5.0, 5.0], [4.0, 5.0, 6.0]).spearman == 0


@pytest.mark.parametrize(
    ("spearman", "mape_percent", "is_poor"),
    [
        (-0.68, 50, True),
        (0.99, 16, True),
        (0.6, 6, True),
        (0.7, 15, False),
        (0.99, 4.6, False),
        (0.0, 0.7, False),  # networks that are equally fast
    ],
)
def test_a_poor_error_is_told_from_a_good_one(spearman: float, mape_percent: float, is_poor: bool) -> None:
    error = PredictionError(networks=30, spearman=spearman, mape_percent=mape_percent)
    assert error.is_poor == is_poor


def test_the_error_of_measurements_without_a_rule_is_poor() -> None:
    sizes = (5.0, 6.0, 7.0, 8.0, 9.0, 10.0)
    times = (9.0, 2.0, 11.0, 3.0, 4.0, 1.5)
    error = PredictionError.cross_validated([measured(ms, 10, time) for ms, time in zip(sizes, times, strict=True)])
    assert error.is_poor
    assert str(error).startswith(f"off by {error.mape_percent:.1f} % on average on networks that it was not fitted on")


def test_the_error_is_that_on_networks_left_out() -> None:
    perfect = PredictionError.cross_validated(following(Calibration(scale=1.1, fixed_ms=1.0)))
    assert (perfect.networks, perfect.spearman) == (12, 1.0)
    assert perfect.mape_percent == pytest.approx(0, abs=1e-6)
    # The stranger is told by nothing, and its fold's calibration has seen only the others.
    stranger = [measured(10.0, 10, 20.0 if index == 3 else 10.0) for index in range(5)]
    assert PredictionError.cross_validated(stranger).mape_percent >= 100 * 0.5 / 5
    fitted = Calibration.fit(stranger).latency_ms(10.0, 10)
    assert abs(fitted / 20 - 1) < 0.5
