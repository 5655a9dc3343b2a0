"""Pareto fronts of cost and accuracy: the networks that no other beats in both."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def non_dominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points (cost, mIoU) that no other beats, by ascending cost, then index.

    A point is beaten by one that costs no more, scores no less, and is better in at least one; equal points stay.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for index in order:
        if not front or points[index][1] > points[front[-1]][1] or points[index] == points[front[-1]]:
            front.append(index)
    return front


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Compute the exact area that the points (cost, mIoU) dominate, bounded by `reference`.

    Source: Zitzler and Thiele, Multiobjective Evolutionary Algorithms, IEEE Transactions on Evolutionary
    Computation, 1999.
    """
    worst_cost, lowest_miou = reference
    area, scored = 0.0, lowest_miou
    for cost, miou in (points[i] for i in non_dominated(points)):
        if cost < worst_cost and miou > scored:
            area += (worst_cost - cost) * (miou - scored)
            scored = miou
    return area


def non_dominated_ranks(points: ArrayLike) -> NDArray[np.intp]:
    """Rank each point from 0: the number of fronts to remove before no other point beats it.

    `points` (N, objectives) are maximised; takes O(N²) memory. Source: Deb et al., NSGA-II, IEEE Transactions on
    Evolutionary Computation, 2002, section III-A.
    """
    values = np.asarray(points, dtype=float)
    no_worse = np.logical_and.reduce([column[:, None] >= column for column in values.T])
    beats = no_worse & ~no_worse.T
    beaten_by = beats.sum(axis=0)
    ranks = np.full(len(values), -1)
    while (front := np.flatnonzero((ranks < 0) & (beaten_by == 0))).size:
        ranks[front] = ranks.max() + 1
        beaten_by -= beats[front].sum(axis=0)
    return ranks


def crowding_distances(points: ArrayLike) -> NDArray[np.float64]:
    """Measure how far each point of a front is from its neighbours; infinite at the ends of each objective.

    Sums over the objectives the distance between the next point above and the next below, as a share of the range. An
    objective in which all points are equal adds nothing. `points` is (N, objectives). Source: Deb et al., NSGA-II, IEEE
    Transactions on Evolutionary Computation, 2002, section III-B.
    """
    values = np.asarray(points, dtype=float)
    distances = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        ascending = column[order]
        if width := ascending[-1] - ascending[0]:
            padded = np.concatenate([[-np.inf], ascending, [np.inf]])
            distances[order] += (padded[2:] - padded[:-2]) / width
    return distances


class Fronts:
    """Points of two objectives, both maximised, sorted into fronts as they come; iterating yields their numbers.

    Those of the first front come first, in each front those with the largest crowding distance, then by number. A new
    point takes its place in a front, which pushes those that it beats into the next one, and so on: with N points of no
    order, steps in proportion to √N. Source: Li et al., Efficient Nondomination Level Update Method for Steady-State
    Evolutionary Multiobjective Optimization, IEEE Transactions on Cybernetics, 2017.
    """

    def __init__(self) -> None:
        self._fronts: list[_Front] = []

    def __bool__(self) -> bool:
        return bool(self._fronts)

    def __iter__(self) -> Iterator[int]:
        for front in self._fronts:
            yield from front.ordered()

    def add(self, number: int, x: float, y: float) -> None:
        """Add a point under its number."""
        level = bisect_left(self._fronts, True, key=lambda front: not front.beats(x, y))
        moved = [(x, y, number)]
        while moved:
            if level == len(self._fronts):
                self._fronts.append(_Front())
            moved = [beaten for point in moved for beaten in self._fronts[level].replace(*point)]
            level += 1


class _Front:
    """Points that do not beat each other, by ascending x and so by descending y."""

    def __init__(self) -> None:
        self._x: list[float] = []
        self._minus_y: list[float] = []
        self._numbers: list[int] = []
        self._ordered: list[int] | None = None

    def beats(self, x: float, y: float) -> bool:
        """Whether one of the points beats this one: that of the next x has the highest y of all that are not below."""
        at = bisect_left(self._x, x)
        return at < len(self._x) and -self._minus_y[at] >= y and (self._x[at], -self._minus_y[at]) != (x, y)

    def replace(self, x: float, y: float, number: int) -> list[tuple[float, float, int]]:
        """Add a point that none beats, and return those that it beats, which are removed."""
        end = bisect_right(self._x, x)
        start = min(end, bisect_left(self._minus_y, -y))
        if end and (self._x[end - 1], self._minus_y[end - 1]) == (x, -y):
            start = end
        beaten = [
            (other, -minus, name)
            for other, minus, name in zip(
                self._x[start:end], self._minus_y[start:end], self._numbers[start:end], strict=True
            )
        ]
        self._x[start:end], self._minus_y[start:end], self._numbers[start:end] = [x], [-y], [number]
        self._ordered = None
        return beaten

    def ordered(self) -> list[int]:
        """Return the numbers, those of the largest crowding distance first."""
        if self._ordered is None:
            points = sorted(zip(self._numbers, self._x, self._minus_y, strict=True))
            distances = crowding_distances([(x, -minus_y) for _, x, minus_y in points])
            self._ordered = [points[place][0] for place in np.argsort(-distances, kind="stable")]
        return self._ordered
