"""Who proposes the next choice; every sampler by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nasseg.planning.samplers.base import Sampler
from nasseg.planning.samplers.neighbourhood import NeighbourhoodSampler
from nasseg.planning.samplers.uniform import RandomSampler
from nasseg.space import Space


def _tpe(space: Space[Any]) -> Sampler:
    from nasseg.planning.samplers.optuna import tpe

    return tpe(space)


def _nsga2(space: Space[Any]) -> Sampler:
    from nasseg.planning.samplers.optuna import nsga2

    return nsga2(space)


SAMPLERS: Mapping[str, Callable[[Space[Any]], Sampler]] = {
    "random": RandomSampler,
    "neighbourhood": NeighbourhoodSampler,
    "tpe": _tpe,
    "nsga2": _nsga2,
}
