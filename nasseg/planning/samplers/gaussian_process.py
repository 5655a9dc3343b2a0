"""Optuna's Gaussian process, adapted to successive halving and to decisions that depend on others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from random import Random
from statistics import mean
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import GPSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from nasseg.planning.candidates import Trial
from nasseg.planning.samplers.optuna import OptunaSampler, suggestions
from nasseg.space import Choice, Space
from nasseg.space.decisions import Value

STARTUP_TRIALS = 10
"""Trials with values before the process is asked; until then samples are uniform."""
MOST_TRIALS = 300
"""The latest trials with values, from which the process learns; a proposal then takes about a second."""
MOST_REJECTED = 50
"""The latest trials that violate a limit, from which it learns the limits."""
MOST_RUNNING = 16
"""The latest trials that run, from which proposals keep away."""
LEVEL = "(level)"
"""Parameter that stands for the rung a trial reached; no field of a choice has such a name."""


class GaussianProcessSampler(OptunaSampler):
    """Expected improvement under a Gaussian process over all decisions (Matérn 5/2, a length scale per decision).

    Optuna's process learns from COMPLETE trials whose parameters are all the same, so they are shown to it as such:

    - A trial counts with its values at the highest rung it finished, and this rung is one more parameter. The process
      so learns how much training adds, and improvement over the best is sought at the top.
    - A decision that a trial did not take stands at its middle option.
    - A trial that violates a limit, and has no values, has the mean ones, with its constraints: the process of the
      values learns next to nothing from it, those of the constraints all.

    What still runs is RUNNING, so that proposals keep away from it; what failed is left out.
    """

    def __init__(self, space: Space[Any]) -> None:
        super().__init__(space, lambda seed: GPSampler(seed=seed, n_startup_trials=1, warn_independent_sampling=False))
        self._suggestions = cache(partial(suggestions, space))

    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        """Propose the choice of most expected improvement, or a uniform sample while few trials have values.

        If that choice is known already, propose one of its neighbours, as the process would not change its mind.
        """
        choice: Choice
        if sum(tried.values is not None for tried in history) < STARTUP_TRIALS:
            choice = self._space.sample(rng)
            return choice
        choice = super().propose(history, rng)
        if self._space.canonical(choice) in {tried.choice for tried in history}:
            choice = rng.choice(list(self._space.neighbours(choice)))
        return choice

    def shown(self, history: Sequence[Trial]) -> list[FrozenTrial]:
        """Return the trials that Optuna sees: those that violate a limit, those with values, those that run."""
        scored = [tried for tried in history if tried.values is not None][-MOST_TRIALS:]
        blank = [tried for tried in history if tried.values is None]
        rejected = [tried for tried in blank if not tried.candidate.feasible and tried.final][-MOST_REJECTED:]
        running = [tried for tried in blank if not tried.final][-MOST_RUNNING:]
        levels = IntDistribution(min(tried.level for tried in scored), max(tried.level for tried in scored))
        neutral = [mean(each) for each in zip(*(tried.values for tried in scored if tried.values), strict=True)]
        known = [self._suggestions(tried.choice)[1] for tried in (*scored, *rejected, *running)]
        distributions: dict[str, BaseDistribution] = {LEVEL: levels}
        for of_trial in known:
            distributions |= of_trial
        absent = {name: _middle(distribution) for name, distribution in distributions.items()}

        def as_seen(tried: Trial, state: TrialState, level: int, values: Sequence[float] | None) -> FrozenTrial:
            params, _ = self._suggestions(tried.choice)
            return create_trial(
                state=state,
                values=values,
                params={**absent, **params, LEVEL: level},
                distributions=distributions,
                constraints={str(place): value for place, value in enumerate(tried.candidate.constraints.values())},
            )

        return [
            *(as_seen(tried, TrialState.COMPLETE, levels.high, neutral) for tried in rejected),
            *(as_seen(tried, TrialState.COMPLETE, tried.level, tried.values) for tried in scored),
            *(as_seen(tried, TrialState.RUNNING, levels.high, None) for tried in running),
        ]


def _middle(distribution: BaseDistribution) -> Value:
    if isinstance(distribution, IntDistribution):
        return (distribution.low + distribution.high) // 2
    assert isinstance(distribution, CategoricalDistribution)
    options = distribution.choices
    return options[len(options) // 2]
