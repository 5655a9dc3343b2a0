"""Limits that a network must keep: latency, parameters, multiply–adds, memory."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, PositiveFloat

from nasseg.planning.job import Costs
from nasseg.space.space import C, Space

SAMPLES = 100
"""Random networks from which the search for the least cost starts."""
TRIES = 1000
"""Networks examined on the descent from there."""


@dataclass(frozen=True)
class _Kind:
    """How a limit is named, written and shown; the first of `units` is that of plain numbers."""

    option: str
    example: str
    units: Mapping[str, float]
    least: str
    shown: tuple[float, str, int]

    def text(self, value: float) -> str:
        scale, unit, digits = self.shown
        return f"{value / scale:.{digits}f} {unit}"


_COUNTS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
_BYTES = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_KINDS = {
    "latency_ms": _Kind("target_latency", "20ms", {"ms": 1.0, "us": 1e-3, "s": 1e3}, "fastest", (1, "ms", 2)),
    "params": _Kind("max_params", "3M", _COUNTS, "smallest", (1e6, "M parameters", 3)),
    "madds": _Kind("max_madds", "2G", _COUNTS, "cheapest", (1e9, "G MAdds", 3)),
    "memory_bytes": _Kind("max_memory", "512MiB", _BYTES, "smallest", (2.0**20, "MiB", 1)),
}


class Limits(BaseModel):
    """The most that a network may cost; `None` means no limit. `latency_ms` is a table's prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latency_ms: PositiveFloat | None = None
    params: PositiveFloat | None = None
    madds: PositiveFloat | None = None
    memory_bytes: PositiveFloat | None = None

    @classmethod
    def parse(cls, **options: str | None) -> Limits:
        """Parse limits: `target_latency="20ms"`, `max_params="3M"`, `max_madds="2G"`, `max_memory="512MiB"`.

        Raises `ValueError` for anything but a number above 0 with a unit.
        """
        return cls(**{name: _parsed(kind, options.get(kind.option)) for name, kind in _KINDS.items()})

    @property
    def given(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return self.model_dump(exclude_none=True)

    def constraints(self, costs: Costs) -> dict[str, float]:
        """Compute by what share of itself each limit is exceeded; above 0 it is violated (as in Optuna)."""
        return {name: _cost(costs, name) / limit - 1 for name, limit in self.given.items()}

    def __str__(self) -> str:
        return ", ".join(f"at most {_KINDS[name].text(limit)}" for name, limit in self.given.items())


def excess(constraints: Mapping[str, float]) -> float:
    """Sum up the violations; 0 if all limits are kept."""
    return sum(value for value in constraints.values() if value > 0)


def require_reachable(limits: Limits, space: Space[C], costs: Callable[[C], Costs]) -> None:
    """Raise `ValueError`, with the least cost found, unless some network of `space` keeps the limits.

    Examines the references and random networks, each with the lowest option of the space's dial, then descends from the
    best of these through neighbours.
    """
    for name, limit in limits.given.items():
        kind = _KINDS[name]
        least = _least(space, lambda choice, name=name: _cost(costs(choice), name), limit)  # type: ignore[misc]
        if least > limit:
            raise ValueError(
                f"{kind.option} is {kind.text(limit)}, but the {kind.least} network found in the space has "
                f"{kind.text(least)}; raise it, or search a space with smaller networks"
            )
    if exceeded := _least(space, lambda choice: excess(limits.constraints(costs(choice))), 0):
        raise ValueError(
            f"each limit alone can be kept, but no network was found that keeps all ({limits}); the nearest is "
            f"{exceeded:.0%} above them; raise one"
        )


def descend(
    space: Space[C], choice: C, value: Callable[[C], float], rng: random.Random, tries: int, done: Callable[[C], bool]
) -> C:
    """Descend from a choice through random neighbours of lower `value` until one is `done` or `tries` are examined.

    Returns the last choice reached.
    """
    least, neighbours = value(choice), _shuffled(space, choice, rng)
    for _ in range(tries):
        near = next(neighbours, None)
        if near is None or done(near):
            return near or choice
        if value(near) < least:
            choice, least, neighbours = near, value(near), _shuffled(space, near, rng)
    return choice


def _shuffled(space: Space[C], choice: C, rng: random.Random) -> Iterator[C]:
    neighbours = list(space.neighbours(choice))
    rng.shuffle(neighbours)
    return map(space.canonical, neighbours)


def _least(space: Space[C], value: Callable[[C], float], enough: float) -> float:
    """Find the least value, or the first that is `enough`."""
    rng = random.Random("limits")
    best, least = None, math.inf
    for shape in (*space.references().values(), *(space.sample(rng) for _ in range(SAMPLES))):
        choice = shape if space.dial is None else space.dialled(shape, 0)
        if best is None or value(choice) < least:
            best, least = choice, value(choice)
        if least <= enough:
            return least
    assert best is not None
    return value(descend(space, best, value, rng, TRIES, done=lambda near: value(near) <= enough))


def _cost(costs: Costs, name: str) -> float:
    cost = getattr(costs, name)
    return math.inf if cost is None else float(cost)


def _parsed(kind: _Kind, text: object) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", str(text).strip())
    unit = match and next((unit for unit in kind.units if unit.lower() == match[2].lower()), None)
    if match is None or unit is None or float(match[1]) == 0:
        units = ", ".join(unit or "none" for unit in kind.units)
        raise ValueError(
            f"{kind.option} is {text!r}, but must be a number above 0 with a unit ({units}), like {kind.example}"
        )
    return float(match[1]) * kind.units[unit]
