"""Rank correlation: how well two orders agree."""

from __future__ import annotations

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

    Source: Kendall, The treatment of ties in ranking problems, Biometrika 33, 1945.
    """
    a, b = _paired(x, y)
    if not _have_orders(a, b):
        return None
    above = np.triu_indices(len(a), k=1)
    sign_a, sign_b = np.sign(a[:, None] - a[None, :])[above], np.sign(b[:, None] - b[None, :])[above]
    return float((sign_a * sign_b).sum() / np.sqrt((sign_a**2).sum() * (sign_b**2).sum()))


def _paired(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"shapes are {a.shape} and {b.shape}; both must be the same (N,)")
    return a, b


def _have_orders(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return len(a) >= 3 and bool(np.ptp(a)) and bool(np.ptp(b))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: NDArray[np.float64] = (last - (count - 1) / 2)[group]
    return ranks
