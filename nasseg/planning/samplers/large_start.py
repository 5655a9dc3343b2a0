"""A start at the networks with the most parameters."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from nasseg.planning.candidates import Trial
from nasseg.planning.samplers.base import Region, Sampler
from nasseg.space import Choice

STARTS = 10
DRAWS = 10


class LargeStart:
    """A sampler whose first `STARTS` proposals each have the most parameters of `DRAWS` draws; another takes over.

    For draws of about equal latency, among which more parameters rank higher: few narrow layers at high resolution,
    wide ones at low (`benchmarks/samplers.py`). Without a band of latency, these would be the slowest networks.
    """

    def __init__(self, sampler: Sampler, region: Region) -> None:
        """Take the sampler that takes over, and the region that the start draws from."""
        self._sampler, self._region = sampler, region

    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        """Propose the draw with the most parameters, or what the other sampler does; references do not count."""
        trained = sum(tried.candidate.feasible and tried.candidate.label is None for tried in history)
        if trained >= STARTS:
            return self._sampler.propose(history, rng)
        return max((self._region.draw(rng) for _ in range(DRAWS)), key=self._region.params)
