"""Regularised evolution: tournaments among the latest trials, and one decision mutated."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from nasseg.planning.candidates import Trial
from nasseg.planning.samplers.base import Region, draw_best, with_values
from nasseg.space import Choice


class EvolutionSampler:
    """A mutation of the best of a few trials, drawn from the latest ones; the oldest die, however good they are.

    Until the population is complete, samples are uniform. Of several trials, the best is one at the highest rung that
    no other there dominates.

    Source: Real et al., Regularized Evolution for Image Classifier Architecture Search, AAAI 2019, algorithm 1, with
    its share of a quarter of the population in a tournament (25 of 100); the population is smaller, as searches are.
    """

    def __init__(self, region: Region, population: int = 16, tournament: int = 4) -> None:
        self._space, self._population, self._tournament = region.space, population, tournament

    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        """Draw a uniform sample or mutate the winner of a tournament."""
        scored = with_values(history)
        choice: Choice
        if len(scored) < self._population:
            choice = self._space.sample(rng)
            return choice
        drawn = rng.sample(scored[-self._population :], self._tournament)
        choice = self._space.mutated(draw_best(drawn, rng).choice, rng)
        return choice
