"""Who proposes the next choice.

A sampler remembers nothing: a proposal depends on what was tried and on the generator alone. A resumed search therefore
proposes what an unbroken one would have proposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from nasseg.space import Choice


@dataclass(frozen=True)
class Tried:
    """A choice that was handed out, and how far it came.

    `rung` is the number of rungs that it finished, `values` those of the objectives at the last of them, to be
    maximised: 0 and `None` while the first is still in training. `final` is true at the top rung. A `final` choice
    without values failed or, at rung 0, was not trained as it breaks a limit. Of the `constraints`, those above 0 are
    violated.
    """

    choice: Choice
    rung: int
    values: tuple[float, ...] | None
    final: bool
    constraints: tuple[float, ...] = ()

    @property
    def feasible(self) -> bool:
        """Whether it keeps all limits."""
        return all(value <= 0 for value in self.constraints)


class Sampler(Protocol):
    """Proposes choices; repeats are allowed, as they are not trained again."""

    def propose(self, history: Sequence[Tried], rng: Random) -> Choice:
        """The next choice to try, given all that were tried, in their order."""
