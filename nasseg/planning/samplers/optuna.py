"""Optuna's samplers as samplers of a space."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Sequence
from random import Random
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from nasseg.planning.candidates import Trial
from nasseg.space import Choice, Space
from nasseg.space.decisions import Decision

optuna.logging.set_verbosity(optuna.logging.ERROR)


class OptunaSampler:
    """Any Optuna sampler, shown each trial as what it is, with its constraints.

    A trial at the top rung is COMPLETE with its values. With one objective, one at a lower rung is PRUNED there, with
    its value as the intermediate one, even while it may yet be promoted: after that it is shown at its new rung. With
    several, for which Optuna has no intermediate values, it is RUNNING, as is one without values; so Optuna learns from
    the top rung only. A failed one is FAIL, one that was not trained as it breaks a limit PRUNED.
    """

    def __init__(self, space: Space[Any], make: Callable[[int], BaseSampler]) -> None:
        """`make(seed)` makes the Optuna sampler, a fresh one for each proposal."""
        self._space = space
        self._make = make
        self._frozen: dict[tuple[str, int, bool], FrozenTrial] = {}

    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        """The next choice to try, given all that were tried, in their order."""
        view = View([self._freeze(tried) for tried in history])
        objectives = max((len(tried.values) for tried in history if tried.values), default=1)
        with warnings.catch_warnings():
            # TPE's grouping is marked as experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = self._make(rng.getrandbits(32))
            study = optuna.create_study(storage=view, sampler=sampler, directions=["maximize"] * objectives)
            trial = study.ask()
            choice: Choice = self._space.choose(lambda decision: _suggest(trial, decision))
        return choice

    def _freeze(self, tried: Trial) -> FrozenTrial:
        known = tried.key, tried.level, tried.final
        if known not in self._frozen:
            self._frozen[known] = as_trial(self._space, tried)
        return self._frozen[known]


def tpe(space: Space[Any]) -> OptunaSampler:
    """Tree-structured Parzen estimator over groups of parameters (Bergstra et al., NeurIPS 2011)."""
    return OptunaSampler(space, lambda seed: TPESampler(multivariate=True, group=True, seed=seed))


def nsga2(space: Space[Any]) -> OptunaSampler:
    """NSGA-II (Deb et al., 2002) whose parents are the best so far of the top rung.

    The population is smaller than Optuna's 50, as few trials reach the top rung.
    """
    return OptunaSampler(space, lambda seed: NSGAIISampler(population_size=16, seed=seed))


def suggestions(space: Space[Any], choice: Choice) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """The parameters that describe `choice`, and the distributions that Optuna draws them from.

    A decision between ordered options is the position of the option taken, any other is the option itself.
    """
    made = space.made(choice)
    return (
        {d.parameter: position if d.ordered else d.options[position] for d, position in made},
        {d.parameter: _distribution(d) for d, _ in made},
    )


def _distribution(decision: Decision) -> BaseDistribution:
    if decision.ordered:
        return IntDistribution(0, len(decision.options) - 1)
    return CategoricalDistribution(decision.options)


def _suggest(trial: optuna.Trial, decision: Decision) -> int:
    """The position of the option that Optuna takes."""
    if decision.ordered:
        return trial.suggest_int(decision.parameter, 0, len(decision.options) - 1)
    return decision.options.index(trial.suggest_categorical(decision.parameter, decision.options))


def as_trial(space: Space[Any], tried: Trial) -> FrozenTrial:
    """The Optuna trial that tells the truth about `tried`."""
    one = tried.values[0] if tried.values and len(tried.values) == 1 else None
    if not tried.final:
        state = TrialState.RUNNING if one is None else TrialState.PRUNED
    elif tried.values is None:
        state = TrialState.FAIL if tried.level else TrialState.PRUNED
    else:
        state = TrialState.COMPLETE
    params, distributions = suggestions(space, tried.choice)
    return create_trial(
        state=state,
        values=tried.values if tried.final else None,
        params=params,
        distributions=distributions,
        intermediate_values={} if one is None else {tried.level: one},
        constraints={str(place): value for place, value in enumerate(tried.candidate.constraints.values())},
        # With all of them in generation 0, NSGA-II needs no memory of when a generation began.
        system_attrs={"NSGAIISampler:generation": 0},
    )


class View(InMemoryStorage):
    """Holds `trials`, numbered from 1, beside the one that is asked for, which is number 0.

    Adding them one by one to an ordinary storage would copy all of them for each proposal.
    """

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        for number, trial in enumerate(trials, start=1):
            trial.number = trial._trial_id = number
        self._trials = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trial that is asked for, and those held."""
        asked = super().get_all_trials(study_id, deepcopy, states)
        return asked + [trial for trial in self._trials if states is None or trial.state in states]
