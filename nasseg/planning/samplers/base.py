"""Who proposes the next choice.

A sampler remembers nothing: a proposal depends on what was tried and on the generator alone. A resumed search therefore
proposes what an unbroken one would have proposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from nasseg.planning.candidates import Trial
from nasseg.space import Choice


class Sampler(Protocol):
    """Proposes choices; repeats are allowed, as they are not trained again."""

    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        """Propose the next choice, given what was rejected and all that were tried, in their order."""
