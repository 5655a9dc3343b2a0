"""The sampler of the DPC paper: neighbours of the best choice, mixed with uniform samples."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from nasseg.planning.candidates import Trial
from nasseg.planning.samplers.base import Region, draw_best, with_values
from nasseg.space import Choice


class NeighbourhoodSampler:
    """A mixture of uniform samples and neighbours of the best choice so far.

    The best is a non-dominated choice among the feasible ones at the highest rung reached. Source: Chen et al.,
    Searching for Efficient Multi-Scale Architectures for Dense Image Prediction (DPC), NeurIPS 2018; it does not give
    the shares of the mixture.
    """

    def __init__(self, region: Region, uniform_share: float = 0.5) -> None:
        self._space = region.space
        self._uniform_share = uniform_share

    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        """Draw a uniform sample or a neighbour of the best."""
        scored = with_values(history)
        choice: Choice
        if not scored or rng.random() < self._uniform_share:
            choice = self._space.sample(rng)
        else:
            choice = rng.choice(list(self._space.neighbours(draw_best(scored, rng).choice)))
        return choice
