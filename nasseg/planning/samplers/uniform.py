"""Uniform samples."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from nasseg.planning.candidates import Trial
from nasseg.space import Choice, Space


class RandomSampler:
    """A sampler that draws uniformly from the space."""

    def __init__(self, space: Space[Any]) -> None:
        self._space = space

    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        """Draw a uniform sample."""
        choice: Choice = self._space.sample(rng)
        return choice
