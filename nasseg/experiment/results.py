"""The results of a search so far: its candidates ranked, the best, and the front of accuracy and cost."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from nasseg.cost import Latency
from nasseg.experiment.trust import Gain, Trust, measure_gain, measure_trust
from nasseg.pareto import non_dominated
from nasseg.planning.candidates import Standing, Trial, TrialStatus, furthest_first
from nasseg.planning.final.estimate import estimated_scores
from nasseg.planning.objective import Objective


class _Place(NamedTuple):
    """A place in the ranking, in ascending order from the best; `standing` is negated."""

    standing: tuple[int, int]
    score: float
    number: int


class Results:
    """The results that follow from the `trials` of a search so far, and from those that it takes in later.

    What a new outcome costs does not grow with the number of trials. `latencies` are measured, by key. The front uses
    them if `by_measurement` and all candidates for the front have one, else the objective's cost.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        objective: Objective,
        rungs: Sequence[int],
        latencies: Mapping[str, Latency],
        by_measurement: bool,
    ) -> None:
        self.trials: list[Trial] = []
        """All candidates with an outcome, in the order they were proposed."""
        self.own = 0
        """How many of them this search has tried itself."""
        self.ranked: list[Trial] = []
        """The candidates with a score that keep all limits, best first.

        Those trained end to end come first, by `estimated_scores`, then those of higher rungs.
        """
        self.changes: list[Trial] = []
        """The candidates in the order in which their outcomes were taken in, one for each time."""
        self.counts: Counter[TrialStatus] = Counter()
        """The number of candidates by status."""
        self.latencies = latencies
        self.by_measurement = by_measurement
        """Whether latencies are measured on the device that the search is for."""
        self._objective, self._rungs = objective, rungs
        self._places: dict[Trial, _Place | None] = {}
        self._statuses: dict[Trial, TrialStatus] = {}
        self._front: list[Trial] | None = []
        self._labelled: list[Trial] = []
        self._end_to_end: list[Trial] = []
        self._ended: dict[Trial, None] = {}
        """Those with a deciding run, feasible or not, in the order in which they had one."""
        self._first_at: dict[int, Trial] = {}
        self._furthest: Standing | None = None
        for trial in trials:
            if trial.proxy or trial.full:
                self.take_in(trial)

    def take_in(self, trial: Trial) -> None:
        """Take in what is new of a trial."""
        self.changes.append(trial)
        if trial not in self._places:
            insort(self.trials, trial, key=_number)
            self.own += not trial.elsewhere
            if trial.candidate.label is not None:
                insort(self._labelled, trial, key=_number)
        else:
            self.counts[self._statuses[trial]] -= 1
        self._statuses[trial] = trial.status(self._rungs[-1])
        self.counts[self._statuses[trial]] += 1
        self._rank(trial)
        self._lead(trial)

    @property
    def references(self) -> dict[str, Trial]:
        """The handcrafted references by name, first the baseline (`furthest_first`)."""
        ordered = furthest_first(self._labelled, self._objective.score_of)
        return {trial.candidate.label: trial for trial in ordered if trial.candidate.label}

    @property
    def best(self) -> Trial | None:
        """The best candidate so far."""
        return self.ranked[0] if self.ranked else None

    def leaders(self) -> tuple[Standing | None, Trial | None, Trial | None]:
        """Find how far candidates have come, and the best candidate and the best reference by their mIoU there.

        Until one that is no reference has been scored, this is where the best is. References that break a limit cannot
        be the best.
        """
        there = self._furthest or (self.best.standing if self.best else None)
        if there is None:
            return None, None, None

        def first(trials: Iterable[Trial]) -> Trial | None:
            scored = [(miou, trial) for trial in trials if (miou := trial.miou_at(there)) is not None]
            return max(scored, key=lambda one: one[0], default=(0.0, None))[1]

        best = first(self._end_to_end) if there.end_to_end else self._first_at.get(there.step)
        return there, best, first(self.references.values())

    @property
    def best_score(self) -> float | None:
        """The best candidate's score."""
        return None if self.best is None else self.score(self.best)

    @property
    def overruled(self) -> Trial | None:
        """The candidate whose end-to-end runs have a higher mean score than the best's, if there is one."""
        ended = [trial for trial in self._ended if trial.candidate.feasible]
        highest = max(ended, key=lambda trial: (self.score(trial) or 0.0, -trial.number), default=None)
        return None if highest is self.best else highest

    def score(self, trial: Trial) -> float | None:
        """Average a candidate's scores over its decisive outcomes; `None` if it has none yet."""
        return trial.mean_of(self._objective.score_of)

    @property
    def trained_furthest(self) -> list[Trial]:
        """The feasible candidates trained as far as the best, whose scores are therefore comparable."""
        if not self.ranked:
            return []
        return self.ranked[: bisect_right(self.ranked, self._standing(self.ranked[0]), key=self._standing)]

    @property
    def front(self) -> list[Trial]:
        """The candidates trained furthest that no other beats in both mIoU and cost, cheapest first."""
        if self._front is None:
            self._front = self._unbeaten(self.trained_furthest)
        return self._front

    @property
    def trust(self) -> Trust:
        """The trust in the proxy's ranking, computed anew each time, also while another thread takes trials in."""
        return measure_trust([trial.copied() for trial in list(self.trials)], self._rungs)

    @property
    def gain(self) -> Gain | None:
        """What fresh seeds say of the best network found and the baseline; `None` until both have one."""
        found = next((trial for trial in self.ranked if trial.candidate.label is None), None)
        baseline = next(iter(self.references.values()), None)
        if found is None or baseline is None:
            return None
        return measure_gain(found, baseline, dict.fromkeys([*self._end_to_end, *self._labelled]))

    def _rank(self, trial: Trial) -> None:
        """Move a trial to its place in the ranking, and to the front if it belongs there.

        An end-to-end run tells of the others that have some, too.
        """
        highest = self._standing(self.ranked[0]) if self.ranked else None
        was = self._places.get(trial)
        scores: dict[Trial, float | None] = {trial: self.score(trial)}
        if trial.standing is not None and trial.standing.end_to_end:
            self._ended[trial] = None
            scores |= estimated_scores(self._ended, self._rungs[-1], self._objective.score_of)
        for changed, score in scores.items():
            self._place_at(changed, score)
        now = self._places[trial]
        was_there = was is not None and was.standing == highest
        if was_there or (self.ranked and self._standing(self.ranked[0]) != highest) or self._measured:
            self._front = None
        elif now is not None and now.standing == highest and self._front is not None:
            self._front = self._unbeaten(sorted([*self._front, trial], key=self._place))

    def _place_at(self, trial: Trial, score: float | None) -> None:
        was, standing = self._places.get(trial), trial.standing
        if was is not None:
            place = bisect_left(self.ranked, was, key=self._place)
            del self.ranked[self.ranked.index(trial, place)]
        self._places[trial] = None
        if standing is not None and score is not None and trial.candidate.feasible:
            self._places[trial] = _Place((-standing.end_to_end, -standing.step), -score, trial.number)
            insort(self.ranked, trial, key=self._place)

    @property
    def _measured(self) -> bool:
        return self.by_measurement and bool(self.latencies)

    def _lead(self, trial: Trial) -> None:
        """Note how far a trial has come, and whether it is the first there."""
        if trial.candidate.label is None and trial.standing is not None:
            self._furthest = max(trial.standing, self._furthest or trial.standing)
        if not trial.candidate.feasible:
            return
        if trial.full and trial not in self._end_to_end:
            insort(self._end_to_end, trial, key=_number)
        for step, outcome in trial.proxy.items():
            first = self._first_at.setdefault(step, trial) if outcome.miou is not None else trial
            if (outcome.miou or 0.0, -trial.number) > (first.proxy[step].miou or 0.0, -first.number):
                self._first_at[step] = trial

    def _unbeaten(self, tried: Sequence[Trial]) -> list[Trial]:
        costs = [self._objective.cost(trial.costs) for trial in tried]
        if self.by_measurement and all(trial.key in self.latencies for trial in tried):
            costs = [self.latencies[trial.key].median_ms for trial in tried]
        points = [(cost, trial.miou or 0.0) for cost, trial in zip(costs, tried, strict=True)]
        return [tried[index] for index in non_dominated(points)]

    def _place(self, trial: Trial) -> _Place:
        place = self._places[trial]
        assert place is not None
        return place

    def _standing(self, trial: Trial) -> tuple[int, int]:
        return self._place(trial).standing


def _number(trial: Trial) -> int:
    return trial.number
