"""Uniform samples."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from nasseg.planning.candidates import Trial
from nasseg.planning.samplers.base import Region
from nasseg.space import Choice


class RandomSampler:
    """A sampler that draws uniformly from the space."""

    def __init__(self, region: Region) -> None:
        self._space = region.space

    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        """Draw a uniform sample."""
        choice: Choice = self._space.sample(rng)
        return choice
