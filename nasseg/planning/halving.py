"""One rung of asynchronous successive halving, for one objective or several."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise

from nasseg.pareto import Fronts


class Rung:
    """The candidates that finished a rung, by number, ordered by non-dominated rank and then by crowding distance.

    There are one or two objectives, which are maximised (negate a cost). A single one is ordered by value. A crowding
    distance depends on the objectives' scale: give a cost that counts by ratio as its logarithm. Ties are broken by
    number; failed candidates come last.

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
        self._fronts = Fronts()
        """In place of these two lists, if there are two objectives."""

    def __len__(self) -> int:
        return len(self._finished) + len(self._failed)

    def finish(self, number: int, objectives: Sequence[float] | None) -> None:
        """Enter a candidate. Without objectives it has failed: it counts as the worst and is never promoted.

        Raises `ValueError` if an objective is not finite, their number differs from that of the others, or there are
        more than two.
        """
        if objectives is None:
            self._failed.add(number)
            return
        expected = len(next(iter(self._finished.values()), objectives))
        if len(objectives) != expected or expected > 2 or not all(map(math.isfinite, objectives)):
            allowed = expected if expected <= 2 else "one or two"
            raise ValueError(f"objectives of candidate {number} are {objectives}; must be {allowed} finite numbers")
        self._finished[number] = tuple(objectives)
        if expected == 2:
            self._fronts.add(number, objectives[0], objectives[1])
            return
        insort(self._ranking, number, key=self._place)
        if number not in self._promoted:
            insort(self._waiting, number, key=self._place)

    def promote(self, number: int) -> None:
        """Note that a candidate was promoted."""
        if number not in self._promoted and not self._fronts and number in self._finished:
            del self._waiting[bisect_left(self._waiting, self._place(number), key=self._place)]
        self._promoted.add(number)

    def promotable(self, limit: int) -> list[int]:
        """Return up to `limit` candidates that may be promoted now, best first."""
        free = len(self) // self._reduction - len(self._promoted)
        return self.waiting(min(limit, free)) if free > 0 else []

    def waiting(self, most: int | None = None) -> list[int]:
        """Return all, or the first, that were not promoted and did not fail, best first."""
        if not self._fronts:
            return self._waiting[:most]
        return list(islice((number for number in self.ranking() if number not in self._promoted), most))

    def ranking(self) -> Iterable[int]:
        """Return all that did not fail, best first."""
        return self._fronts or self._ranking

    def position(self, number: int) -> int:
        """Return the position in `ranking` of a candidate that did not fail."""
        if self._fronts:
            return next(place for place, other in enumerate(self._fronts) if other == number)
        return bisect_left(self._ranking, self._place(number), key=self._place)

    def _place(self, number: int) -> tuple[float, int]:
        return -self._finished[number][0], number


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
