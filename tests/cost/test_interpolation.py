import pytest

from nasseg.cost.describe import operator_cost
from nasseg.cost.interpolation import Interpolation
from nasseg.ops import AveragePool, Conv, conv1x1


def test_times_that_follow_the_costs_are_found() -> None:
    def ms(op: Conv, channels: int) -> float:
        cost = operator_cost(op, ((channels, 8, 8),))
        values = cost.weights + 64 * (channels + op.out_channels)
        return 3e-6 * cost.madds + 2e-5 * values + 0.1

    calls = [(Conv(out_channels=width, kernel=kernel), c) for width in (4, 9) for kernel in (1, 3, 5) for c in (3, 8)]
    fitted = Interpolation.fit([((op, ((c, 8, 8),)), ms(op, c)) for op, c in calls])
    assert fitted.kinds == ("conv",)
    assert fitted.ms(conv1x1(30), ((20, 8, 8),)) == pytest.approx(ms(conv1x1(30), 20))


def test_each_kind_has_its_own_fit() -> None:
    shape = (4, 8, 8)
    fitted = Interpolation.fit([((conv1x1(4), (shape,)), 1.0), ((AveragePool(), (shape,)), 7.0)])
    assert fitted.ms(conv1x1(4), (shape,)) == pytest.approx(1.0)
    assert fitted.ms(AveragePool(), (shape,)) == pytest.approx(7.0)
