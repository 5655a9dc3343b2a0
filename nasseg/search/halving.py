"""One rung of asynchronous successive halving."""

from __future__ import annotations

import math
from bisect import bisect_left, insort


class Rung:
    """The candidates that finished a rung, by number, and those among them that were not promoted.

    A candidate may be promoted as soon as it is among the best `finished / reduction`. Source: Li et al., A System for
    Massively Parallel Hyperparameter Tuning, MLSys 2020, algorithm 2.
    """

    def __init__(self, reduction: int) -> None:
        self._reduction = reduction
        self._finished: list[tuple[float, int]] = []
        self._waiting: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._finished)

    def finish(self, number: int, score: float | None) -> None:
        """Enter a candidate. Without a score, as one that failed, it counts as the worst and is never promoted."""
        entry = (math.inf if score is None else -score, number)
        insort(self._finished, entry)
        if score is not None:
            insort(self._waiting, entry)

    def promote(self, number: int, score: float) -> None:
        """Note that a candidate was promoted."""
        del self._waiting[bisect_left(self._waiting, (-score, number))]

    def promotable(self, limit: int) -> list[int]:
        """Up to `limit` candidates that may be promoted now, best first."""
        quota = len(self._finished) // self._reduction
        best = self._waiting[:limit]
        return [entry[1] for entry in best if bisect_left(self._finished, entry) < quota]

    def waiting(self) -> list[int]:
        """All that were not promoted and did not fail, best first."""
        return [number for _, number in self._waiting]

    def ranking(self) -> list[int]:
        """All that did not fail, best first."""
        return [number for entry, number in self._finished if entry != math.inf]
