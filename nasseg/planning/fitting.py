"""Scaling points to the limits of a search: shapes are drawn, and the dial of their space sets their size.

To throw away what is beyond a limit would waste most draws and favour small networks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Generic

from nasseg.planning.limits import Limits, descend
from nasseg.space.space import C, Space

BAND = 0.92
"""Least share of a limit that a scaled point takes up."""
LOOK_ABOVE = 3
"""Options of a dial that are tried above the one found, as predicted costs only nearly rise with them."""
DRAWS = 100
"""Shapes drawn before walks look for one that can be scaled into the band."""
WALKS = 3
STEPS = 200
"""Shapes examined on each walk."""
SHAPES_CHECKED = 50
"""Random shapes, besides the references, of which one must reach the band for a search to begin."""


@dataclass(frozen=True)
class Fit(Generic[C]):
    """A point brought to the limits as near as its shape allows.

    `miss` is how far it is from the band, as a share of the limit: above 0 it is too large, below 0 too small.
    """

    choice: C
    miss: float

    @property
    def in_band(self) -> bool:
        """Whether it keeps all limits and, if it was scaled, takes up at least `BAND` of one."""
        return self.miss == 0

    @property
    def outcome(self) -> str:
        """What came of scaling it, in a word."""
        return "scaled" if self.in_band else "below" if self.miss < 0 else "beyond"


@dataclass(frozen=True)
class Fitting(Generic[C]):
    """The way that points of `space` are brought to limits.

    `constraints` tells by what share of itself a point exceeds each limit (`Limits.constraints`); it is empty if there
    are none. If there are, the space has a dial, and `scales` is true, the dial takes the highest option that keeps all
    limits. Otherwise points stay as they are.
    """

    space: Space[C]
    constraints: Callable[[C], Mapping[str, float]]
    scales: bool = True

    @property
    def by_dial(self) -> bool:
        """Whether points are scaled if there are limits."""
        return self.scales and self.space.dial is not None

    def fit(self, choice: C) -> Fit[C]:
        """Scale a point to the limits and return its canonical form; costs about ten evaluations of `constraints`."""
        choice = self.space.canonical(choice)
        if not self.by_dial or not self.constraints(choice):
            return Fit(choice, max(0.0, self._load(choice)))
        options = range(len(self.space.dial_of(choice)[0].options))

        def scaled(position: int) -> C:
            return self.space.canonical(self.space.dialled(choice, position))

        def is_beyond(position: int) -> bool:
            return self._load(scaled(position)) > 0

        beyond = bisect_left(options, True, key=is_beyond)
        above = options[beyond + 1 : beyond + 1 + LOOK_ABOVE]
        highest = next((position for position in reversed(above) if not is_beyond(position)), max(0, beyond - 1))
        found = scaled(highest)
        load = self._load(found)
        return Fit(found, load if load > 0 else min(0.0, load - (BAND - 1)))

    def draw(self, rng: Random) -> Fit[C]:
        """Draw a point in the band, uniformly among the shapes that can be scaled into it.

        If none of `DRAWS` shapes can, walks go on from the nearest; what they reach may still be outside of the band.
        """
        missed = []
        for _ in range(DRAWS):
            fitted = self.fit(self.space.sample(rng))
            if fitted.in_band:
                return fitted
            missed.append(fitted)
        nearest, *_ = starts = sorted(missed, key=_distance)[:WALKS]
        for start in starts:
            nearest = min(nearest, self._walk(start.choice, rng), key=_distance)
            if nearest.in_band:
                break
        return nearest

    def references(self) -> dict[str, C]:
        """Scale the handcrafted points of the space to the limits, by label.

        A changed one is `NAME-scaled`, or `NAME-below` or `NAME-beyond` if its dial does not reach the band. Of several
        that become the same, the first remains.
        """
        found: dict[C, str] = {}
        for name, choice in self.space.references().items():
            fitted = self.fit(choice)
            unchanged = fitted.choice == self.space.canonical(choice)
            found.setdefault(fitted.choice, name if unchanged else f"{name}-{fitted.outcome}")
        return {label: choice for choice, label in found.items()}

    def _walk(self, choice: C, rng: Random) -> Fit[C]:
        """Go through random neighbours, scaled, that are ever nearer to the band."""

        def distance(near: C) -> float:
            return _distance(self.fit(near))

        return self.fit(descend(self.space, choice, distance, rng, STEPS, done=lambda near: distance(near) == 0))

    def _load(self, choice: C) -> float:
        """Return by what share of itself the tightest limit is exceeded."""
        return max(self.constraints(choice).values(), default=0.0)


def require_fit(fitting: Fitting[C], limits: Limits) -> None:
    """Raise `ValueError`, with the nearest network found, if none can be scaled to the limits, although all are to be.

    A space may have smaller networks and yet none that takes up as much as the limits ask for.
    """
    if not fitting.by_dial or not limits.given:
        return
    rng = Random("limits")
    shapes = [*fitting.space.references().values(), *(fitting.space.sample(rng) for _ in range(SHAPES_CHECKED))]
    nearest = min(_until_in_band(map(fitting.fit, shapes)), key=_distance)
    if not nearest.in_band:
        share = nearest.miss + (1 if nearest.miss > 0 else BAND)
        raise ValueError(
            f"no network was found that takes up {BAND:.0%} to 100% of the limits ({limits}); the nearest takes up "
            f"{share:.0%}; set them by that, or search another space"
        )


def _until_in_band(fits: Iterable[Fit[C]]) -> Iterator[Fit[C]]:
    for fitted in fits:
        yield fitted
        if fitted.in_band:
            return


def _distance(fitted: Fit[C]) -> float:
    return abs(fitted.miss)
