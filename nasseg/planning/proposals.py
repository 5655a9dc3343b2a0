"""New candidates, from the sampler within the limits, or from its replacements when it repeats itself."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from nasseg.planning.candidates import Candidates
from nasseg.planning.limits import descend, excess
from nasseg.planning.samplers.base import Sampler
from nasseg.space import Choice, Space

_TRIES_OF_SAMPLER = 20
_TRIES_AT_RANDOM = 100
_TRIES_OF_DESCENT = 200


class Proposals:
    """New choices of `space`.

    A proposal that violates a limit is noted as rejected, and a walk through its neighbours looks for a feasible
    choice. A sampler that only repeats known choices is replaced by uniform samples, then by neighbours of known ones.
    """

    def __init__(self, space: Space[Any], sampler: Sampler, candidates: Candidates, seed: int) -> None:
        self._space, self._sampler, self._candidates, self._seed = space, sampler, candidates, seed
        self._exhausted = False
        self.repeats = 0
        """How often a known choice was proposed."""

    def next(self) -> Choice | None:
        """Propose an unknown choice, or `None` if the space has no other.

        Each try has its own generator, derived from the number of known candidates, so that an interruption does not
        change the proposals.
        """
        if self._exhausted:
            return None
        candidates, space = self._candidates, self._space
        for attempt in range(_TRIES_OF_SAMPLER + _TRIES_AT_RANDOM):
            rng = Random(f"{self._seed}/{len(candidates.trials)}/{attempt}")
            choice = self._sampled(rng) if attempt < _TRIES_OF_SAMPLER else space.canonical(space.sample(rng))
            if candidates.is_open(choice):
                return choice
            self.repeats += 1
        near = (space.canonical(other) for trial in candidates.trials for other in space.neighbours(trial.choice))
        found = next(filter(candidates.is_open, near), None)
        self._exhausted = found is None
        return found

    def found_by_relaxation(self, choice: Choice, seed: int) -> Choice:
        """Return the canonical choice or, if it violates a limit, one found by walking from it towards the limits."""
        choice = self._space.canonical(choice)
        if self._candidates.is_feasible(choice):
            return choice
        rng = Random(f"{self._seed}/relaxation {seed}")
        return self._toward_limits(choice, rng, done=self._candidates.is_feasible)

    def _sampled(self, rng: Random) -> Choice:
        candidates = self._candidates
        history = [*candidates.rejected, *candidates.trials]
        choice: Choice = self._space.canonical(self._sampler.propose(history, rng))
        if candidates.is_feasible(choice):
            return choice
        candidates.reject(choice)
        return self._toward_limits(choice, rng, done=candidates.is_open)

    def _toward_limits(self, choice: Choice, rng: Random, done: Callable[[Choice], bool]) -> Choice:
        def beyond(near: Choice) -> float:
            return excess(self._candidates.describe(near).constraints)

        found: Choice = descend(self._space, choice, beyond, rng, _TRIES_OF_DESCENT, done)
        return found
