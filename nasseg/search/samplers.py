"""Who proposes the next choice.

A sampler remembers nothing: a proposal depends on what was tried and on the generator alone. A resumed search therefore
proposes what an unbroken one would have proposed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from nasseg.search.front import non_dominated_ranks
from nasseg.search.space import Choice, Space


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


class RandomSampler:
    """Uniform samples of the space."""

    def __init__(self, space: Space[Any]) -> None:
        self._space = space

    def propose(self, history: Sequence[Tried], rng: Random) -> Choice:
        """A uniform sample."""
        choice: Choice = self._space.sample(rng)
        return choice


class NeighbourhoodSampler:
    """A mixture of uniform samples and of neighbours of the best choice so far.

    The best is, of those that keep all limits, one that no other beats at the highest rung reached. Source: Chen et
    al., Searching for Efficient Multi-Scale Architectures for Dense Image Prediction (DPC), NeurIPS 2018; it does not
    tell the mixture's shares.
    """

    def __init__(self, space: Space[Any], uniform_share: float = 0.5) -> None:
        self._space = space
        self._uniform_share = uniform_share

    def propose(self, history: Sequence[Tried], rng: Random) -> Choice:
        """A uniform sample or a neighbour of the best."""
        scored = [(tried, tried.values) for tried in history if tried.values is not None and tried.feasible]
        choice: Choice
        if not scored or rng.random() < self._uniform_share:
            choice = self._space.sample(rng)
        else:
            highest = max(tried.rung for tried, _ in scored)
            furthest = [(tried, values) for tried, values in scored if tried.rung == highest]
            ranks = non_dominated_ranks([values for _, values in furthest])
            best = rng.choice([tried for (tried, _), rank in zip(furthest, ranks, strict=True) if rank == 0])
            choice = rng.choice(list(self._space.neighbours(best.choice)))
        return choice


def _tpe(space: Space[Any]) -> Sampler:
    from nasseg.search.optuna_sampler import tpe

    return tpe(space)


def _nsga2(space: Space[Any]) -> Sampler:
    from nasseg.search.optuna_sampler import nsga2

    return nsga2(space)


SAMPLERS: Mapping[str, Callable[[Space[Any]], Sampler]] = {
    "random": RandomSampler,
    "neighbourhood": NeighbourhoodSampler,
    "tpe": _tpe,
    "nsga2": _nsga2,
}
