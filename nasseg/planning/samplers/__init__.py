"""Samplers, which propose the next choice, by name."""

from __future__ import annotations

from collections.abc import Callable

from nasseg import plugins
from nasseg.planning.samplers.base import Region, Sampler
from nasseg.planning.samplers.evolution import EvolutionSampler
from nasseg.planning.samplers.large_start import LargeStart
from nasseg.planning.samplers.neighbourhood import NeighbourhoodSampler
from nasseg.planning.samplers.uniform import RandomSampler

MakeSampler = Callable[[Region], Sampler]


def _tpe(region: Region) -> Sampler:
    from nasseg.planning.samplers.optuna import tpe

    return tpe(region.space)


def _nsga2(region: Region) -> Sampler:
    from nasseg.planning.samplers.optuna import nsga2

    return nsga2(region.space)


def _gp(region: Region) -> Sampler:
    from nasseg.planning.samplers.gaussian_process import GaussianProcessSampler

    return LargeStart(GaussianProcessSampler(region), region)


SAMPLERS: dict[str, MakeSampler] = {
    "random": RandomSampler,
    "neighbourhood": NeighbourhoodSampler,
    "evolution": EvolutionSampler,
    "tpe": _tpe,
    "nsga2": _nsga2,
    "gp": _gp,
}
"""The built-in samplers by name; each is called with the region that it may propose in."""

ENTRY_POINTS = "nasseg.samplers"
"""Group of entry points in which installed packages register samplers of their own, called in the same way."""


def samplers() -> dict[str, MakeSampler]:
    """Return every sampler by name: the built-in ones, then those of installed packages."""
    installed = {name: plugins.loaded(ENTRY_POINTS, name) for name in plugins.names(ENTRY_POINTS)}
    return SAMPLERS | installed | SAMPLERS


def find_sampler(name: str) -> MakeSampler:
    """Find a sampler by name; raises `ValueError` for an unknown one, listing the known ones."""
    known = SAMPLERS if name in SAMPLERS else samplers()
    if name not in known:
        raise ValueError(f"unknown sampler {name!r}; known: {', '.join(known)}")
    return known[name]
