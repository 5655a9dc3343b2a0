"""Pareto fronts of cost and accuracy: the networks that no other beats in both."""

from __future__ import annotations

from collections.abc import Sequence

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
