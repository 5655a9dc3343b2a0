"""The interface of samplers.

A sampler keeps no state: a proposal depends only on the history and the generator. A resumed search therefore makes the
same proposals as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from nasseg.planning.candidates import Trial
from nasseg.space import Choice


class Sampler(Protocol):
    """A source of proposals; repeats are allowed, as they are not trained again."""

    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        """Propose the next choice, given the rejected trials and then the others, each in their order."""
