"""Rank correlation: how well two orders agree."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import ArrayLike, NDArray


def spearman(x: ArrayLike, y: ArrayLike) -> float | None:
    """Compute Spearman's rank correlation; ties share their mean rank.

    `None` for fewer than three points, or if all of `x` or all of `y` are equal: there is no order to compare.
    """
    a, b = _paired(x, y)
    if not _have_orders(a, b):
        return None
    return float(np.clip(np.corrcoef(_ranks(a), _ranks(b))[0, 1], -1, 1))


def kendall(x: ArrayLike, y: ArrayLike) -> float | None:
    """Compute Kendall's tau-b, which corrects for ties. `None` as for `spearman`.

    Pairs are counted against the sorted values before them, not one by one.

    Source: Kendall, The treatment of ties in ranking problems, Biometrika 33, 1945.
    """
    a, b = _paired(x, y)
    if not _have_orders(a, b):
        return None
    agreeing, before = 0, list[float]()
    for _, group in groupby(sorted(zip(a.tolist(), b.tolist(), strict=True)), key=itemgetter(0)):
        values = [value for _, value in group]
        for value in values:
            below, above = bisect_left(before, value), len(before) - bisect_right(before, value)
            agreeing += below - above
        for value in values:
            insort(before, value)
    return agreeing / math.sqrt(_untied_pairs(a) * _untied_pairs(b))


def _paired(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"shapes are {a.shape} and {b.shape}; both must be the same (N,)")
    return a, b


def _untied_pairs(values: NDArray[np.float64]) -> int:
    counts = np.unique(values, return_counts=True)[1]
    return math.comb(len(values), 2) - sum(math.comb(int(count), 2) for count in counts)


def _have_orders(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return len(a) >= 3 and bool(np.ptp(a)) and bool(np.ptp(b))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: NDArray[np.float64] = (last - (count - 1) / 2)[group]
    return ranks
