"""Optuna's samplers, adapted to spaces."""

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
from nasseg.space.decisions import Decision, Value

optuna.logging.set_verbosity(optuna.logging.ERROR)


class OptunaSampler:
    """Any Optuna sampler, shown each trial with its constraints and true state.

    A trial at the top rung is COMPLETE with its values. With one objective, a trial at a lower rung is PRUNED there,
    with its value as the intermediate one, even if it may yet be promoted: then it is shown at its new rung. With
    several, for which Optuna has no intermediate values, it is RUNNING, so Optuna learns from the top rung only. A
    trial without values is RUNNING, FAIL if it failed, or PRUNED if it violates a limit and is not trained.
    """

    def __init__(self, space: Space[Any], make: Callable[[int], BaseSampler]) -> None:
        """Take `make(seed)`, which makes a fresh Optuna sampler for each proposal."""
        self._space = space
        self._make = make
        self._frozen: dict[tuple[str, int, bool], FrozenTrial] = {}

    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        """Propose the next choice, given all trials, in their order."""
        view = View(self.shown(history))
        objectives = max((len(tried.values) for tried in history if tried.values), default=1)
        with warnings.catch_warnings():
            # TPE's grouping is marked as experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = self._make(rng.getrandbits(32))
            study = optuna.create_study(storage=view, sampler=sampler, directions=["maximize"] * objectives)
            trial = study.ask()
            choice: Choice = self._space.choose(lambda decision: _suggest(trial, decision))
        return choice

    def shown(self, history: Sequence[Trial]) -> list[FrozenTrial]:
        """Return the trials that Optuna sees in place of `history`."""
        before, self._frozen = self._frozen, {}
        for tried in history:
            known = tried.key, tried.level, tried.final
            if known not in self._frozen:
                self._frozen[known] = before.get(known) or as_trial(self._space, tried)
        return [self._frozen[tried.key, tried.level, tried.final] for tried in history]


def tpe(space: Space[Any]) -> OptunaSampler:
    """Make a tree-structured Parzen estimator over groups of parameters (Bergstra et al., NeurIPS 2011)."""
    return OptunaSampler(space, lambda seed: TPESampler(multivariate=True, group=True, seed=seed))


def nsga2(space: Space[Any]) -> OptunaSampler:
    """Make NSGA-II (Deb et al., 2002), whose parents are the best trials so far at the top rung.

    The population is smaller than Optuna's 50, as few trials reach the top rung.
    """
    return OptunaSampler(space, lambda seed: NSGAIISampler(population_size=16, seed=seed))


def suggestions(space: Space[Any], choice: Choice) -> tuple[dict[str, Value], dict[str, BaseDistribution]]:
    """Describe `choice` as Optuna's parameters, with their distributions.

    A decision between ordered options becomes the position of the option taken, any other the option itself.
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
    """Ask Optuna for the position of an option."""
    if decision.ordered:
        return trial.suggest_int(decision.parameter, 0, len(decision.options) - 1)
    return decision.options.index(trial.suggest_categorical(decision.parameter, decision.options))


def as_trial(space: Space[Any], tried: Trial) -> FrozenTrial:
    """Convert `tried` to the Optuna trial that `OptunaSampler` shows."""
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
    """A storage of `trials`, numbered from 1; number 0 is the new trial.

    Adding them to an ordinary storage one by one would copy all of them for each proposal.
    """

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        for number, trial in enumerate(trials, start=1):
            trial.number = trial._trial_id = number
        self._trials = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the new trial and those held."""
        asked = super().get_all_trials(study_id, deepcopy, states)
        return asked + [trial for trial in self._trials if states is None or trial.state in states]
