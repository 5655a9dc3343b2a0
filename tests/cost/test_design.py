from collections import Counter
from itertools import pairwise

import pytest

from nasseg.cost import design
from nasseg.cost.design import find_operators, points_of, spread
from nasseg.cost.latency_table import Operator
from nasseg.ops import Add, Conv, conv1x1
from tests.jobs.tiny import TinySpace

from .made_up import SIZE, network


def convolution(width: int) -> Operator:
    return Operator(op=conv1x1(width), inputs=((8, 4, 4),))


def test_operators_are_counted_until_none_is_new() -> None:
    counts = find_operators([network(4, 4), network(4)] * 300, SIZE)
    stem = next(operator for operator in counts if operator.op == Conv(out_channels=4, stride=2))
    assert counts[stem] == 1 + design.PATIENCE  # only the first point had new ones
    assert len(counts) == 4


def test_shapes_without_end_are_looked_at_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design, "ENOUGH_FOUND", 20)
    assert 20 <= len(find_operators((network(width) for width in range(1, 10_000)), SIZE)) < 24


def test_all_operators_are_chosen_if_there_are_few() -> None:
    counts = find_operators(points_of(TinySpace(), 3), SIZE)
    assert spread(counts, len(counts)) == list(counts)


def test_those_chosen_are_spread_over_sizes_and_hold_the_frequent_ones() -> None:
    counts = Counter({convolution(width): 1 for width in range(1, 201)})
    widths = sorted(operator.op.out_channels_of([8]) for operator in spread(counts, 20))
    assert len(widths) == 20
    assert [high - low for low, high in pairwise(widths)] == [10] * 19
    counts[convolution(77)] = 50
    assert convolution(77) in spread(counts, 20)
    assert len(spread(counts, 20)) == 20
    assert spread(counts, 20) == spread(Counter(dict(reversed(counts.items()))), 20)


def test_a_rare_kind_is_measured_too() -> None:
    adds = [Operator(op=Add(), inputs=((width, 4, 4), (width, 4, 4))) for width in range(1, 6)]
    counts = Counter({convolution(width): 9 for width in range(1, 201)} | dict.fromkeys(adds, 1))
    assert set(adds) <= set(spread(counts, 20))


def test_kinds_that_take_most_of_the_time_have_most_of_those_chosen() -> None:
    adds = [Operator(op=Add(), inputs=((width, 2, 2), (width, 2, 2))) for width in range(1, 201)]
    counts = Counter([*map(convolution, range(1, 201)), *adds])
    kinds = Counter(operator.op.op for operator in spread(counts, 100))
    # Widths are 100 on average: 8·100·16 multiply–adds and 8·16 + 8·100 + 100·16 values, against 3·100·4 values.
    work, work_of_adds = 12_864 + 16 * (128 + 804 + 1608), 16 * 1206
    assert kinds["conv"] == round(100 * work / (work + work_of_adds))
    assert kinds["add"] == round(100 * work_of_adds / (work + work_of_adds))
