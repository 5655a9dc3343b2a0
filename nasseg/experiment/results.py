"""The results of a search so far: its candidates ranked, the best, and the front of accuracy and cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from nasseg.cost import Latency
from nasseg.experiment.trust import Trust, measure_trust
from nasseg.pareto import non_dominated
from nasseg.planning.candidates import Standing, Trial, mean
from nasseg.planning.objective import Objective


class Results:
    """The results that follow from the `trials` of a search so far.

    `latencies` are measured, by key, and may grow. The front uses them if `by_measurement` and all candidates for the
    front have one, else the objective's cost.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        objective: Objective,
        rungs: Sequence[int],
        latencies: Mapping[str, Latency],
        by_measurement: bool,
    ) -> None:
        self.trials = [trial for trial in trials if trial.proxy or trial.full]
        """All candidates with an outcome, in the order they were proposed."""
        self.latencies = latencies
        self._objective, self._rungs, self._by_measurement = objective, rungs, by_measurement

    @cached_property
    def references(self) -> dict[str, Trial]:
        """The handcrafted references by name, first the baseline: the best of those trained furthest, most often."""

        def standing(trial: Trial) -> tuple[int, int, float]:
            return len(trial.full), max(trial.proxy, default=0), self.score(trial) or 0.0

        furthest_first = sorted(self.trials, key=standing, reverse=True)
        return {trial.candidate.label: trial for trial in furthest_first if trial.candidate.label}

    @cached_property
    def ranked(self) -> list[Trial]:
        """The candidates with a score that keep all limits, best first.

        Those trained end to end come first, then those of higher rungs. A search that ends with fewer seeds of its
        references than of its finalists still compares them by their means.
        """
        feasible = [trial for trial in self.trials if trial.candidate.feasible and trial.standing is not None]
        return sorted(feasible, key=lambda trial: (trial.standing, self.score(trial)), reverse=True)

    @property
    def best(self) -> Trial | None:
        """The best candidate so far."""
        return self.ranked[0] if self.ranked else None

    def leaders(self) -> tuple[Standing | None, Trial | None, Trial | None]:
        """Find how far candidates have come, and the best candidate and the best reference by their mIoU there.

        Until one that is no reference has been scored, this is where the best is. References that break a limit cannot
        be the best.
        """
        found = [
            trial.standing for trial in self.trials if trial.candidate.label is None and trial.standing is not None
        ]
        there = max(found, default=None) or (self.best.standing if self.best else None)
        if there is None:
            return None, None, None

        def first(trials: Iterable[Trial]) -> Trial | None:
            scored = [(miou, trial) for trial in trials if (miou := trial.miou_at(there)) is not None]
            return max(scored, key=lambda one: one[0], default=(0.0, None))[1]

        return there, first(trial for trial in self.trials if trial.candidate.feasible), first(self.references.values())

    @property
    def best_score(self) -> float | None:
        """The best candidate's score."""
        return None if self.best is None else self.score(self.best)

    def score(self, trial: Trial) -> float | None:
        """Average a candidate's scores over its decisive outcomes; `None` if it has none yet."""
        scores = [self._objective.score(o.miou, self._objective.cost(o)) for o in trial.decisive if o.miou is not None]
        return mean(scores)

    @cached_property
    def trained_furthest(self) -> list[Trial]:
        """The feasible candidates trained as far as the best, whose scores are therefore comparable."""
        return [trial for trial in self.ranked if trial.standing == self.ranked[0].standing]

    @cached_property
    def front(self) -> list[Trial]:
        """The candidates trained furthest that no other beats in both mIoU and cost, cheapest first."""
        tried = self.trained_furthest
        costs = [self._objective.cost(trial.costs) for trial in tried]
        if self._by_measurement and all(trial.key in self.latencies for trial in tried):
            costs = [self.latencies[trial.key].median_ms for trial in tried]
        points = [(cost, trial.miou or 0.0) for cost, trial in zip(costs, tried, strict=True)]
        return [tried[index] for index in non_dominated(points)]

    @cached_property
    def trust(self) -> Trust:
        """The trust in the proxy's ranking."""
        return measure_trust(self.trials, self._rungs)
