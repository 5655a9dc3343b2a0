from examples.own_space import TwoRates
from nasseg.testing import SpaceConformance


class TestTwoRates(SpaceConformance):
    space = TwoRates()


def test_its_size() -> None:
    assert TwoRates().size() == 5 * 5 * 3
