"""Asynchronous successive halving: one rung, for one objective or several, and the rungs above each other."""

from __future__ import annotations

import math
from bisect import bisect, bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise

from nasseg.pareto import Fronts
from nasseg.planning.candidates import Trial
from nasseg.planning.config import PlannerSettings
from nasseg.planning.job import Outcome


class Rung:
    """The candidates that finished a rung, by number, ordered by non-dominated rank and then by crowding distance.

    There are one or two objectives, which are maximised (negate a cost). A single one is ordered by value. A crowding
    distance depends on the objectives' scale: give a cost that counts by ratio as its logarithm. Ties are broken by
    number; failed candidates come last.

    Whenever `finished / reduction` exceeds the number promoted, the best waiting candidate may be promoted. The order
    changes as candidates finish, but promotions are final and all of them count. Algorithm 2 of Li et al. counts only
    those still among the best; on a front, whose crowding changes with each newcomer, that promotes far too many (0.43
    instead of 1/3 of random networks in `benchmarks/pareto.py`).

    Candidates that are not `own` count in the order and, once promoted, in the share, but are not offered.

    Sources: Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE Transactions on Evolutionary
    Computation, 2002, section III; Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020,
    algorithm 2.
    """

    def __init__(self, reduction: int) -> None:
        self._reduction = reduction
        self._finished: dict[int, tuple[float, ...]] = {}
        self._failed: set[int] = set()
        self._promoted: set[int] = set()
        self._elsewhere: set[int] = set()
        self._ranking: list[int] = []
        self._waiting: list[int] = []
        self._fronts = Fronts()
        """In place of these two lists, if there are two objectives."""

    def __len__(self) -> int:
        return len(self._finished) + len(self._failed)

    def finish(self, number: int, objectives: Sequence[float] | None, own: bool = True) -> None:
        """Enter a candidate. Without objectives it has failed: it counts as the worst and is never promoted.

        Raises `ValueError` if an objective is not finite, their number differs from that of the others, or there are
        more than two.
        """
        if objectives is None:
            self._failed.add(number)
            return
        if not own:
            self._elsewhere.add(number)
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
        """Return up to `limit` own candidates that may be promoted now, best first."""
        free = len(self) // self._reduction - len(self._promoted)
        return self._own(islice(self._not_promoted(), max(0, free)), limit)

    def waiting(self, most: int | None = None) -> list[int]:
        """Return all own ones, or the first, that were not promoted and did not fail, best first."""
        return self._own(self._not_promoted(), most)

    def _not_promoted(self) -> Iterator[int]:
        if not self._fronts:
            return iter(self._waiting)
        return (number for number in self.ranking() if number not in self._promoted)

    def _own(self, numbers: Iterable[int], most: int | None) -> list[int]:
        return list(islice((number for number in numbers if number not in self._elsewhere), most))

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


class Ladder:
    """The rungs of a search, and how far its candidates, the `trials`, have come on them.

    `values` returns the objectives of an outcome, `score` the one number that names the best of several fronts.
    """

    def __init__(
        self,
        settings: PlannerSettings,
        trials: Sequence[Trial],
        values: Callable[[Outcome], tuple[float, ...]],
        score: Callable[[Outcome], float],
    ) -> None:
        self._steps, self._each = settings.rungs, settings.candidates_per_job
        self._trials, self._values, self._score = trials, values, score
        self._best: tuple[float, int] | None = None
        self._rungs = [Rung(settings.reduction) for _ in settings.rungs]

    @property
    def finished(self) -> tuple[int, ...]:
        """The number of candidates that finished each rung, including failed ones."""
        return tuple(len(rung) for rung in self._rungs)

    def finish(self, trial: Trial, outcome: Outcome, step: int) -> None:
        """Note the outcome of a candidate at the rung of this step."""
        ok = outcome.status == "ok"
        trial.proxy[step] = outcome
        trial.below += () if trial.values is None else (trial.values,)
        trial.level = self._steps.index(step) + 1
        trial.values = self._values(outcome) if ok else None
        trial.final = not ok or trial.level == len(self._rungs)
        self._rungs[trial.level - 1].finish(trial.number, trial.values, own=not trial.elsewhere)
        if ok and trial.level == len(self._rungs) and trial.candidate.label is None:
            place = -self._score(outcome), trial.number
            self._best = min(self._best or place, place)

    def replay(self, recorded: Mapping[int, Outcome], trial: Trial) -> None:
        """Note those outcomes on record, by step, that are not known yet; raises `ValueError` for an unknown step."""
        for step, outcome in sorted(recorded.items()):
            if step not in self._steps:
                raise ValueError(f"rungs are {self._steps}; must hold {step}, at which a trial is recorded")
            if step not in trial.proxy:
                self.promote(trial)
                self.finish(trial, outcome, step)

    def promote(self, trial: Trial) -> None:
        """Note that a candidate goes on from the highest rung that it finished, if any."""
        if trial.level:
            self._rungs[trial.level - 1].promote(trial.number)

    def promotable(self) -> list[Trial]:
        """Return a job's candidates that may be promoted now, from the highest rung that has any."""
        return self._first_of(rung.promotable(self._each) for rung in reversed(self._rungs[:-1]))

    def waiting(self, most: int) -> list[Trial]:
        """Return up to so many candidates that wait at the highest rung below the top that has any, best first."""
        return self._first_of(rung.waiting(max(0, most)) for rung in reversed(self._rungs[:-1]))

    def resumable(self, most: int | None) -> list[Trial]:
        """Return all that wait below the top or, of each rung, the best."""
        return [self._trials[number] for rung in self._rungs[:-1] for number in rung.waiting(most)]

    @property
    def best(self) -> Trial | None:
        """The candidate of the top rung with the best score that is no reference."""
        return None if self._best is None else self._trials[self._best[1]]

    def ranked(self) -> Iterator[Trial]:
        """Yield the candidates of the top rung, best first."""
        return (self._trials[number] for number in self._rungs[-1].ranking())

    def place(self, trial: Trial) -> tuple[int, int]:
        """Order candidates that did not fail: those at higher rungs first, then the better."""
        return -trial.level, self._rungs[trial.level - 1].position(trial.number) if trial.level else 0

    def best_first(self) -> Iterator[Trial]:
        """Yield all candidates that finished a rung, those of the highest first and the best of each first."""
        seen: set[int] = set()
        for rung in reversed(self._rungs):
            for number in rung.ranking():
                if number not in seen:
                    seen.add(number)
                    yield self._trials[number]

    def _first_of(self, groups: Iterable[list[int]]) -> list[Trial]:
        return [self._trials[number] for number in next(filter(None, groups), [])]


def mean_work(rungs: Sequence[int], reduction: int) -> tuple[float, float]:
    """Return the steps and the scorings of a candidate on average, as `1 / reduction` go on from each rung."""
    going_on = [reduction**-rung for rung in range(len(rungs))]
    steps = sum(share * (stop - start) for share, (start, stop) in zip(going_on, pairwise((0, *rungs)), strict=True))
    return steps, sum(going_on)


def longest_that(suffices: Callable[[int], bool], shortest: int, longest: int, jumps: Iterable[int]) -> int:
    """Find the longest first rung that suffices, or return the shortest.

    Up to each of the `jumps`, if one suffices, so do those that are shorter, down to the jump before.
    """
    ends = sorted({min(max(jump, shortest - 1), longest) for jump in (shortest - 1, *jumps, longest)}, reverse=True)
    for end, start in pairwise(ends):
        lengths = range(start + 1, end + 1)
        if sufficing := bisect(lengths, False, key=lambda steps: not suffices(steps)):
            return lengths[sufficing - 1]
    return shortest
