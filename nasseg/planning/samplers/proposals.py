"""New candidates, from the sampler within the limits, or from its replacements when it repeats itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from random import Random
from typing import Any

from nasseg.planning.candidates import Candidates, Trial
from nasseg.planning.fitting import Fitting
from nasseg.planning.limits import descend, excess
from nasseg.planning.samplers.base import Sampler
from nasseg.space import Choice

_TRIES_OF_SAMPLER = 20
_TRIES_AT_RANDOM = 100
_TRIES_OF_DESCENT = 200


class Proposals:
    """New choices of the space of `fitting`.

    A proposal is scaled to the limits; if that does not bring it there, the sampler is asked again. Without a dial, one
    that violates a limit is noted as rejected, and a walk through its neighbours looks for a feasible choice. A sampler
    that only repeats known choices is replaced by uniform samples, then by neighbours of known ones.
    """

    def __init__(
        self,
        fitting: Fitting[Any],
        sampler: Sampler,
        candidates: Candidates,
        seed: int | str,
        best_first: Callable[[], Iterable[Trial]],
    ) -> None:
        """Take the sampler, and a function that returns the trials with results, the best first."""
        self._fitting, self._space = fitting, fitting.space
        self._sampler, self._candidates, self._seed = sampler, candidates, seed
        self._best_first = best_first
        self._exhausted = False
        self.repeats = 0
        """How often a known choice was proposed."""

    def next(self) -> Choice | None:
        """Propose an unknown choice, or `None` if the space has no other."""
        if self._exhausted:
            return None
        candidates, space = self._candidates, self._space
        for choice in self._tried():
            if candidates.is_open(choice):
                return choice
            self.repeats += 1
        near = (self._fitting.fit(other) for trial in candidates.trials for other in space.neighbours(trial.choice))
        found = next((fit.choice for fit in near if fit.in_band and candidates.is_open(fit.choice)), None)
        self._exhausted = found is None
        return found

    def found_by_relaxation(self, choice: Choice, seed: int) -> Choice:
        """Scale the choice to the limits or, if it still violates one, return one found by walking towards them."""
        fitted: Choice = self._fitting.fit(choice).choice
        if self._candidates.is_feasible(fitted):
            return fitted
        rng = Random(f"{self._seed}/relaxation {seed}")
        return self._toward_limits(fitted, rng, done=self._candidates.is_feasible)

    def _tried(self) -> Iterator[Choice]:
        """Yield proposals of the sampler, then uniform samples.

        Each try has its own generator, derived from the number of known candidates, so that an interruption does not
        change the proposals.
        """
        known = len(self._candidates.trials)
        rngs = (Random(f"{self._seed}/{known}/{attempt}") for attempt in range(_TRIES_OF_SAMPLER + _TRIES_AT_RANDOM))
        for _ in range(_TRIES_OF_SAMPLER):
            choice = self._sampled(next(rngs))
            if choice is not None:
                yield choice
        if self._fitting.by_dial:
            drawn = takewhile(lambda fit: fit.in_band, map(self._fitting.draw, rngs))
            yield from (fit.choice for fit in drawn)
        else:
            yield from (self._space.canonical(self._space.sample(rng)) for rng in rngs)

    def _sampled(self, rng: Random) -> Choice | None:
        """Take the sampler's proposal to the limits; `None` if its dial does not reach them."""
        candidates = self._candidates
        fitted = self._fitting.fit(self._sampler.propose(candidates.shown(self._best_first()), rng))
        choice: Choice = fitted.choice
        if fitted.in_band:
            return choice
        if not candidates.is_feasible(choice):
            candidates.reject(candidates.describe(choice))
        return None if self._fitting.by_dial else self._toward_limits(choice, rng, done=candidates.is_open)

    def _toward_limits(self, choice: Choice, rng: Random, done: Callable[[Choice], bool]) -> Choice:
        def beyond(near: Choice) -> float:
            return excess(self._candidates.constraints(near))

        found: Choice = descend(self._space, choice, beyond, rng, _TRIES_OF_DESCENT, done)
        return found
