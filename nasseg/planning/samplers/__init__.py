"""Samplers, which propose the next choice, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nasseg import plugins
from nasseg.planning.samplers.base import Sampler
from nasseg.planning.samplers.evolution import EvolutionSampler
from nasseg.planning.samplers.neighbourhood import NeighbourhoodSampler
from nasseg.planning.samplers.uniform import RandomSampler
from nasseg.space import Space


def _tpe(space: Space[Any]) -> Sampler:
    from nasseg.planning.samplers.optuna import tpe

    return tpe(space)


def _nsga2(space: Space[Any]) -> Sampler:
    from nasseg.planning.samplers.optuna import nsga2

    return nsga2(space)


def _gp(space: Space[Any]) -> Sampler:
    from nasseg.planning.samplers.gaussian_process import GaussianProcessSampler

    return GaussianProcessSampler(space)


SAMPLERS: dict[str, Callable[[Space[Any]], Sampler]] = {
    "random": RandomSampler,
    "neighbourhood": NeighbourhoodSampler,
    "evolution": EvolutionSampler,
    "tpe": _tpe,
    "nsga2": _nsga2,
    "gp": _gp,
}
"""The built-in samplers by name; each is called with the space."""

ENTRY_POINTS = "nasseg.samplers"
"""Group of entry points in which installed packages register samplers of their own, called in the same way."""


def samplers() -> dict[str, Callable[[Space[Any]], Sampler]]:
    """Return every sampler by name: the built-in ones, then those of installed packages."""
    installed = {name: plugins.loaded(ENTRY_POINTS, name) for name in plugins.names(ENTRY_POINTS)}
    return SAMPLERS | installed | SAMPLERS


def find_sampler(name: str) -> Callable[[Space[Any]], Sampler]:
    """Find a sampler by name; raises `ValueError` for an unknown one, listing the known ones."""
    known = SAMPLERS if name in SAMPLERS else samplers()
    if name not in known:
        raise ValueError(f"unknown sampler {name!r}; known: {', '.join(known)}")
    return known[name]
