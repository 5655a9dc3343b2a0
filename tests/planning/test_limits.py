import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasseg.planning.job import Costs
from nasseg.planning.limits import Limits, descend, excess, require_reachable
from tests.planning.made_up import Cell, CellSpace

SPACE = CellSpace(branches=3, operators=5)


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"target_latency": "20ms"}, "latency_ms", 20),
        ({"target_latency": "0.5 s"}, "latency_ms", 500),
        ({"target_latency": "800us"}, "latency_ms", 0.8),
        ({"max_params": "3M"}, "params", 3e6),
        ({"max_params": "1200000"}, "params", 1.2e6),
        ({"max_madds": "2.5G"}, "madds", 2.5e9),
        ({"max_memory": "512MiB"}, "memory_bytes", 512 * 2**20),
        ({"max_memory": "1gb"}, "memory_bytes", 1e9),
    ],
)
def test_limits_are_read_with_their_units(options: dict[str, str], name: str, value: float) -> None:
    assert Limits.parse(**options).given == {name: pytest.approx(value)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_latency": "20"}, r"target_latency is '20', but must be .* \(ms, us, s\), like 20ms"),
        ({"target_latency": "fast"}, "target_latency is 'fast'"),
        ({"target_latency": "0ms"}, "target_latency is '0ms', but must be a number above 0"),
        ({"max_params": "3MB"}, r"max_params is '3MB', but must be .* \(none, K, M, G\), like 3M"),
        ({"max_memory": "-1MiB"}, "max_memory is '-1MiB'"),
    ],
)
def test_other_limits_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Limits.parse(**options)


def test_what_is_exceeded_is_told_as_a_share() -> None:
    limits = Limits(latency_ms=20, params=100)
    assert limits.constraints(Costs(latency_ms=25, params=90, madds=7)) == pytest.approx(
        {"latency_ms": 0.25, "params": -0.1}
    )
    assert limits.constraints(Costs(params=100)) == {"latency_ms": float("inf"), "params": 0}
    assert str(limits) == "at most 20.00 ms, at most 0.000 M parameters"
    assert excess({"a": 0.25, "b": -0.1, "c": 0.5}) == 0.75


def costs(choice: Cell) -> Costs:
    """Parameters rise with the operators, MAdds fall; neither is below 2 in any network."""
    total = sum(choice.branches)
    return Costs(params=2 + total, madds=2 + 12 - total)


@given(st.integers(1, 15), st.integers(1, 15))
def test_limits_can_be_reached_if_a_network_keeps_them(params: int, madds: int) -> None:
    limits = Limits(params=params, madds=madds)
    every = [Cell(branches=branches) for branches in itertools.product(range(5), repeat=3)]
    if any(excess(limits.constraints(costs(choice))) == 0 for choice in every):
        require_reachable(limits, SPACE, costs)
    else:
        with pytest.raises(ValueError, match=r"the smallest network|the cheapest network|no network was found"):
            require_reachable(limits, SPACE, costs)


def test_the_least_there_is_is_told() -> None:
    wide = CellSpace(branches=8, operators=40)

    def latency(choice: Cell) -> Costs:
        return Costs(latency_ms=float(10 + sum(abs(op - 17) for op in choice.branches)))

    with pytest.raises(ValueError, match=r"target_latency is 9.00 ms, but the fastest network .* has 10.00 ms"):
        require_reachable(Limits(latency_ms=9), wide, latency)
    require_reachable(Limits(latency_ms=10), wide, latency)


def test_a_walk_ends_where_it_is_done_or_nothing_is_less() -> None:
    def total(choice: Cell) -> float:
        return sum(choice.branches)

    start = Cell(branches=(4, 4, 4))
    assert total(descend(SPACE, start, total, Random(0), 1000, done=lambda near: False)) == 0
    assert total(descend(SPACE, start, total, Random(0), 1000, done=lambda near: total(near) < 9)) < 9
    assert descend(SPACE, start, total, Random(0), 0, done=lambda near: True) == start
