"""The interface of samplers.

A sampler keeps no state: a proposal depends only on the history and the generator. A resumed search therefore makes the
same proposals as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from typing_extensions import Self

from nasseg.pareto import non_dominated_ranks
from nasseg.planning.candidates import Trial
from nasseg.planning.fitting import Fitting
from nasseg.space import Choice, Space


@dataclass(frozen=True)
class Region:
    """Where a sampler may propose: the points of `space` within the limits of a search.

    A sampler may propose any point of the space, as the planner takes it to the limits; one that weighs points against
    each other does better to weigh them as they will be trained. `draw` draws such a point, and `fit` takes a point to
    the limits, or returns `None` if its shape cannot reach them. `params` counts the parameters of its network.
    """

    space: Space[Any]
    draw: Callable[[Random], Choice]
    fit: Callable[[Choice], Choice | None]
    params: Callable[[Choice], float]

    @classmethod
    def of(cls, fitting: Fitting[Any], params: Callable[[Choice], float]) -> Self:
        """Return the region to which `fitting` takes points."""

        def fit(choice: Choice) -> Choice | None:
            fitted = fitting.fit(choice)
            found: Choice = fitted.choice
            return found if fitted.in_band else None

        return cls(fitting.space, lambda rng: fitting.draw(rng).choice, fit, params)


def with_values(history: Sequence[Trial]) -> list[Trial]:
    """List the trials that keep all limits and have finished a rung, in their order."""
    return [tried for tried in history if tried.values is not None and tried.candidate.feasible]


def draw_best(trials: Sequence[Trial], rng: Random) -> Trial:
    """Draw one of the best of trials with values: of those at the highest rung, one that no other there dominates."""
    highest = max(tried.level for tried in trials)
    furthest = [tried for tried in trials if tried.level == highest]
    ranks = non_dominated_ranks([tried.values or () for tried in furthest])
    return rng.choice([tried for tried, rank in zip(furthest, ranks, strict=True) if rank == 0])


class Sampler(Protocol):
    """A source of proposals; repeats are allowed, as they are not trained again."""

    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        """Propose the next choice, given the rejected trials and then the others, each in their order.

        In a long search these are not all, but the best and the latest (`Candidates.shown`).
        """
