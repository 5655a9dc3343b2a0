import itertools

import pytest

from nasseg.cost.describe import operator_cost
from nasseg.cost.interpolation import Interpolation
from nasseg.ops import AveragePool, Conv, Resize, conv1x1


def ms(op: Conv, channels: int) -> float:
    """A time that follows the costs."""
    cost = operator_cost(op, ((channels, 8, 8),))
    values = cost.weights + 64 * (channels + op.out_channels)
    return 3e-6 * cost.madds + 2e-5 * values + 0.1


def test_times_that_follow_the_costs_are_found() -> None:
    calls = [(Conv(out_channels=width, kernel=kernel), c) for width in (4, 9) for kernel in (1, 3, 5) for c in (3, 8)]
    fitted = Interpolation(((op, ((c, 8, 8),)), ms(op, c)) for op, c in calls)
    assert fitted.kinds == ("conv",)
    assert fitted.ms(conv1x1(30), ((20, 8, 8),)) == pytest.approx(ms(conv1x1(30), 20))


def test_fields_that_change_the_time_at_equal_costs_are_learnt() -> None:
    """Atrous convolutions take twice as long on this device, and widths that leave a vector half empty a half more."""

    def true_ms(op: Conv, channels: int) -> float:
        return ms(op, channels) * (2 if op.rate != (1, 1) else 1) * (1.5 if op.out_channels % 16 else 1)

    grid = itertools.product((8, 16, 24, 32, 40, 48, 64, 72, 96), (8, 16, 48, 96), (1, 2))
    calls = [(Conv(out_channels=width, rate=(rate, rate)), channels) for width, channels, rate in grid]
    fitted = Interpolation(((op, ((channels, 8, 8),)), true_ms(op, channels)) for op, channels in calls)
    for width, rate in itertools.product((56, 80), (1, 2)):
        unseen = Conv(out_channels=width, rate=(rate, rate))
        assert fitted.ms(unseen, ((32, 8, 8),)) == pytest.approx(true_ms(unseen, 32), rel=0.1)


def test_each_kind_has_its_own_fit() -> None:
    shape = (4, 8, 8)
    fitted = Interpolation([((conv1x1(4), (shape,)), 1.0), ((AveragePool(), (shape,)), 7.0)])
    assert fitted.ms(conv1x1(4), (shape,)) == pytest.approx(1.0)
    assert fitted.ms(AveragePool(), (shape,)) == pytest.approx(7.0)


def test_a_field_that_no_measured_operator_has_changes_nothing() -> None:
    shape = (4, 8, 8)
    fitted = Interpolation([((Resize(factor=2.0), (shape,)), 1.0), ((Resize(factor=2.0), ((8, 8, 8),)), 2.0)])
    bilinear, nearest = (fitted.ms(Resize(factor=2.0, mode=mode), ((6, 8, 8),)) for mode in ("bilinear", "nearest"))
    assert 1 < bilinear < 2
    assert nearest == pytest.approx(bilinear, rel=0.01)
