import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasseg.pareto import Fronts, crowding_distances, hypervolume, non_dominated, non_dominated_ranks

few = st.integers(0, 5).map(float)


@given(st.lists(st.tuples(few, few), max_size=12))
def test_the_front_is_what_no_point_beats(points: list[tuple[float, float]]) -> None:
    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a != b and a[0] <= b[0] and a[1] >= b[1]

    expected = {i for i, point in enumerate(points) if not any(beats(other, point) for other in points)}
    front = non_dominated(points)
    assert set(front) == expected
    assert len(front) == len(expected)
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


def test_equal_points_stay_in_their_order() -> None:
    assert non_dominated([(2, 0.5), (1, 0.4), (2, 0.5), (3, 0.5)]) == [1, 0, 2]


three_objectives = st.lists(st.tuples(few, few, few), max_size=12)


@given(three_objectives)
def test_ranks_are_fronts_taken_away_one_by_one(points: list[tuple[float, float, float]]) -> None:
    def beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return a != b and all(x >= y for x, y in zip(a, b, strict=True))

    expected, left, rank = {}, set(range(len(points))), 0
    while left:
        front = {i for i in left if not any(beats(points[j], points[i]) for j in left)}
        expected |= dict.fromkeys(front, rank)
        left, rank = left - front, rank + 1
    assert non_dominated_ranks(np.reshape(points, (-1, 3))).tolist() == [expected[i] for i in range(len(points))]


def test_crowding_is_the_space_between_the_neighbours() -> None:
    points = [(0, 10), (2, 5), (3, 4), (8, 0)]
    expected = [math.inf, 3 / 8 + 6 / 10, 6 / 8 + 5 / 10, math.inf]
    assert crowding_distances(points).tolist() == pytest.approx(expected)


def test_an_objective_in_which_all_are_equal_adds_nothing() -> None:
    assert crowding_distances([(1, 7), (2, 7), (4, 7)]).tolist() == [math.inf, 1, math.inf]
    assert crowding_distances([(3, 7), (3, 7)]).tolist() == [0, 0]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=8), st.integers(0, 6), st.integers(0, 6))
def test_hypervolume_is_the_number_of_unit_squares_that_some_point_covers(
    points: list[tuple[int, int]], cost: int, miou: int
) -> None:
    squares = itertools.product(range(cost), range(miou, 6))
    covered = [any(p[0] <= x and p[1] >= y + 1 for p in points) for x, y in squares]
    assert hypervolume(points, (cost, miou)) == sum(covered)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=60))
def test_points_that_come_one_by_one_are_sorted_as_all_at_once(points: list[tuple[int, int]]) -> None:
    fronts = Fronts()
    for number, (x, y) in enumerate(points):
        fronts.add(number, x, y)
    ranks = non_dominated_ranks(np.array(points, dtype=float).reshape(-1, 2))
    distances = np.zeros(len(points))
    for rank in set(ranks.tolist()):
        front = ranks == rank
        distances[front] = crowding_distances(np.array(points, dtype=float)[front])
    order = sorted(range(len(points)), key=lambda number: (ranks[number], -distances[number], number))
    assert list(fronts) == order
