"""One rung of asynchronous successive halving, for one objective or several."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from nasseg.pareto import crowding_distances, non_dominated_ranks


class Rung:
    """The candidates that finished a rung, by number, ordered by non-dominated rank and then by crowding distance.

    Objectives are maximised (negate a cost). A single objective is ordered by value. A crowding distance depends on the
    objectives' scale: give a cost that counts by ratio as its logarithm. Ties are broken by number; failed candidates
    come last.

    Whenever `finished / reduction` exceeds the number promoted, the best waiting candidate may be promoted. The order
    changes as candidates finish, but promotions are final and all of them count. Algorithm 2 of Li et al. counts only
    those still among the best; on a front, whose crowding changes with each newcomer, that promotes far too many (0.43
    instead of 1/3 of random networks in `benchmarks/pareto.py`).

    Sources: Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE Transactions on Evolutionary
    Computation, 2002, section III; Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020,
    algorithm 2.
    """

    def __init__(self, reduction: int) -> None:
        self._reduction = reduction
        self._finished: dict[int, tuple[float, ...]] = {}
        self._failed: set[int] = set()
        self._promoted: set[int] = set()
        self._ranking: list[int] = []
        self._waiting: list[int] = []
        self._is_sorted = True

    def __len__(self) -> int:
        return len(self._finished) + len(self._failed)

    def finish(self, number: int, objectives: Sequence[float] | None) -> None:
        """Enter a candidate. Without objectives it has failed: it counts as the worst and is never promoted.

        Raises `ValueError` if an objective is not finite, or their number differs from that of the others.
        """
        if objectives is None:
            self._failed.add(number)
            return
        expected = len(next(iter(self._finished.values()), objectives))
        if len(objectives) != expected or not all(map(math.isfinite, objectives)):
            raise ValueError(f"objectives of candidate {number} are {objectives}; must be {expected} finite numbers")
        self._finished[number] = tuple(objectives)
        self._is_sorted = self._is_sorted and expected == 1
        if self._is_sorted:
            insort(self._ranking, number, key=self._place)
            if number not in self._promoted:
                insort(self._waiting, number, key=self._place)

    def promote(self, number: int) -> None:
        """Note that a candidate was promoted."""
        if self._is_sorted and number in self._finished and number not in self._promoted:
            del self._waiting[self._index(self._waiting, number)]
        self._promoted.add(number)

    def promotable(self, limit: int) -> list[int]:
        """Return up to `limit` candidates that may be promoted now, best first."""
        free = len(self) // self._reduction - len(self._promoted)
        return list(self.waiting()[: min(limit, free)]) if free > 0 else []

    def waiting(self) -> Sequence[int]:
        """Return all that were not promoted and did not fail, best first."""
        self._sort()
        return self._waiting

    def ranking(self) -> Sequence[int]:
        """Return all that did not fail, best first."""
        self._sort()
        return self._ranking

    def position(self, number: int) -> int:
        """Return the position in `ranking` of a candidate that did not fail."""
        return self._index(self.ranking(), number)

    def _index(self, ordered: Sequence[int], number: int) -> int:
        """Find a candidate in the ranking or in those waiting."""
        if len(self._finished[number]) > 1:
            return ordered.index(number)
        return bisect_left(ordered, self._place(number), key=self._place)

    def _place(self, number: int) -> tuple[float, int]:
        return -self._finished[number][0], number

    def _sort(self) -> None:
        if not self._is_sorted:
            self._ranking = self._ranked()
            self._waiting = [number for number in self._ranking if number not in self._promoted]
            self._is_sorted = True

    def _ranked(self) -> list[int]:
        numbers = np.array(list(self._finished))
        points = np.array(list(self._finished.values()))
        ranks = non_dominated_ranks(points)
        distances = np.zeros(len(points))
        for rank in range(ranks.max() + 1):
            front = ranks == rank
            distances[front] = crowding_distances(points[front])
        return [int(number) for number in numbers[np.lexsort((numbers, -distances, ranks))]]


def best_first(rungs: Sequence[Rung]) -> Iterator[int]:
    """Yield all candidates that finished a rung, those of the highest first and the best of each first."""
    seen: set[int] = set()
    for rung in reversed(rungs):
        for number in rung.ranking():
            if number not in seen:
                seen.add(number)
                yield number


def mean_work(rungs: Sequence[int], reduction: int) -> tuple[float, float]:
    """Return the steps and the scorings of a candidate on average, as `1 / reduction` go on from each rung."""
    going_on = [reduction**-rung for rung in range(len(rungs))]
    steps = sum(share * (stop - start) for share, (start, stop) in zip(going_on, pairwise((0, *rungs)), strict=True))
    return steps, sum(going_on)
