"""One street scene in perspective, with the class of every pixel. `streets.py` explains the rules of the classes.

Depth is given as p, the pixels that one camera height takes up there. A point at lateral position X and height v, both
in camera heights, is at column vanishing_x + X p and row horizon + (1 - v) p.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

CLASSES = {
    "road": (128, 64, 128),
    "bus lane": (200, 90, 60),
    "pavement": (244, 35, 232),
    "parking": (250, 170, 160),
    "building": (70, 70, 70),
    "vegetation": (107, 142, 35),
    "sky": (70, 130, 180),
    "pole": (153, 153, 153),
    "sign": (220, 220, 0),
    "car": (0, 0, 142),
    "van": (0, 60, 100),
    "kiosk": (180, 100, 40),
    "pedestrian": (220, 20, 60),
}
"""Names and colours of the classes."""
ROAD, BUS_LANE, PAVEMENT, PARKING, BUILDING, VEGETATION, SKY, POLE, SIGN, CAR, VAN, KIOSK, PEDESTRIAN = range(
    len(CLASSES)
)

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Colour = tuple[float, float, float]
Interval = tuple[float, float]
_Paint = Callable[[float, float], None]

DAY_SKY, EVENING_SKY = (112, 164, 226), (236, 172, 104)
RED_ROOF, SLATE_ROOF = (168, 64, 46), (70, 86, 112)
RED_SIGN, BLUE_SIGN = (214, 36, 40), (36, 78, 206)
WALLS = np.array([(196, 180, 152), (172, 152, 134), (206, 196, 180), (150, 142, 134), (188, 164, 124)], np.float32)
BODIES = ((214, 214, 210), (60, 64, 70), (150, 36, 38), (44, 70, 124), (190, 166, 60))
CLOTHES = ((180, 50, 60), (40, 60, 110), (60, 110, 70), (200, 170, 60), (60, 50, 60))
GREEN, METAL, GLASS, SKIN, TYRE = (66, 96, 46), (98, 100, 104), (44, 54, 66), (206, 164, 136), (26, 26, 28)
HOUSES_A_SIDE = 24
ROOF_HEIGHT = 0.42


def draw(height: int, width: int, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
    """Draw a scene from `rng`: image (H, W, 3) in RGB and mask (H, W) of class indices."""
    return Scene(height, width, rng).finish()


class Scene:
    """A canvas with the scene's geometry and rules, painted from far to near."""

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.height, self.width = height, width
        self.horizon = float(height * rng.uniform(0.40, 0.47))
        self.vanishing_x = float(width * rng.uniform(0.42, 0.58))
        self.first_row = math.ceil(self.horizon + 1)
        """The first row of ground."""
        self.lateral = width / (2 * height)
        self.kerb = self.lateral * rng.uniform(0.95, 1.15)
        self.wall = self.kerb + self.lateral * rng.uniform(0.95, 1.25, size=2)
        self.evening = bool(rng.integers(2))
        self.red_roofs = rng.integers(2, size=2).astype(bool)
        self.red_signs = rng.integers(2, size=2).astype(bool)
        self.image = np.empty((height, width, 3), np.float32)
        self.mask = np.full((height, width), SKY, np.uint8)

        self._sky()
        self._houses()
        self._ground()
        self._objects()

    def _sky(self) -> None:
        top = np.array(EVENING_SKY if self.evening else DAY_SKY, np.float32)
        haze = np.linspace(0, 0.25, self.first_row, dtype=np.float32)[:, None, None]
        clouds = _texture(self.rng, self.first_row, self.width, 0.5)[..., None]
        np.multiply(top + (245 - top) * haze, 1 + 0.1 * clouds, out=self.image[: self.first_row])

    def _houses(self) -> None:
        """Draw a row of houses, with gaps of hedge, along either side: all columns at once."""
        rng = self.rng
        offset = np.arange(self.width, dtype=np.float32) - self.vanishing_x
        side = (offset > 0).astype(np.intp)
        p = np.maximum(np.abs(offset) / self.wall[side], 0.5).astype(np.float32)
        depth = 0.5 * self.height / p
        ends = np.cumsum(rng.uniform(0.7, 1.7, size=(2, HOUSES_A_SIDE)), axis=1)
        house = np.where(side, np.searchsorted(ends[1], depth), np.searchsorted(ends[0], depth))
        house = np.minimum(house, HOUSES_A_SIDE - 1)

        hedge = (rng.random((2, HOUSES_A_SIDE)) < 0.15)[side, house]
        eaves = rng.uniform(1.25, 1.75, size=(2, HOUSES_A_SIDE)).astype(np.float32)[side, house]
        colours = WALLS[rng.integers(len(WALLS), size=(2, HOUSES_A_SIDE))][side, house]
        shade = np.where(side == rng.integers(2), 0.72, 1.0).astype(np.float32)
        bumps = 0.2 * np.abs(_tile()[(depth * 60).astype(np.intp) % 512, 7])
        roofs = np.array([RED_ROOF if red else SLATE_ROOF for red in self.red_roofs], np.float32)[side]

        top = np.where(hedge, 1.0 + bumps, eaves + ROOF_HEIGHT)
        v = 1 - (np.arange(self.height, dtype=np.float32)[:, None] - self.horizon) / p
        row, column = np.nonzero((v >= 0) & (v < top))
        v, depth, hedge = v[row, column], depth[column], hedge[column]
        roof = (v >= eaves[column]) & ~hedge
        along, up = depth * 3 % 1, v / 0.62 % 1
        window = ~roof & ~hedge & (along > 0.3) & (along < 0.7) & (up > 0.35) & (up < 0.8)

        paint = colours[column]
        paint[hedge] = GREEN
        paint[roof] = roofs[column[roof]]
        paint[window] = GLASS
        grain = _tile()[(v * 90).astype(np.intp) % 512, (depth * 90).astype(np.intp) % 512]
        paint *= (shade[column] * (1 + np.where(hedge, 0.5, 0.12).astype(np.float32) * grain))[:, None]
        self.image[row, column] = paint
        self.mask[row, column] = np.where(hedge, VEGETATION, BUILDING)

    def _ground(self) -> None:
        rng = self.rng
        first = self.first_row
        p = (np.arange(first, self.height, dtype=np.float32) - self.horizon)[:, None]
        x = (np.arange(self.width, dtype=np.float32) - self.vanishing_x) / p
        depth = 0.5 * self.height / p
        side = (x > 0).astype(np.intp)
        distance = np.abs(x)
        strip = distance > self.kerb
        lane = distance > self.kerb * 0.48

        grain = _tile()[(depth * 70).astype(np.intp) % 512, (x * 70).astype(np.intp) % 512]
        slabs = ((x / self.lateral * 4 % 1) < 0.08) | ((depth * 6 % 1) < 0.08)
        level = np.where(strip, 146 - 22 * slabs, 94).astype(np.float32) * (1 + 0.14 * grain)
        edge = np.abs(distance - self.kerb) < 0.035 * self.lateral
        level[edge] = 176
        line = np.abs(distance - self.kerb * 0.48) < 0.018 * self.lateral
        level[line & ((depth * 2 % 1) < 0.6)] = 214
        toward_sun = 1 if rng.integers(2) else -1
        shadow = x * toward_sun > self.kerb * rng.uniform(0.3, 1.2) + 0.15 * np.sign((depth * 1.5 % 1) - 0.5)
        level *= np.where(shadow, 0.66, 1.0).astype(np.float32)

        strips = np.where(self.red_roofs, PAVEMENT, PARKING)[1 - side]
        outer = ROAD if self.evening else BUS_LANE
        classes = np.where(strip, strips, np.where(lane, outer, ROAD)).astype(np.uint8)
        ground = distance < self.wall[side] * 1.001  # no gap at the walls' feet from rounding
        np.copyto(self.image[first:], level[..., None], where=ground[..., None])
        np.copyto(self.mask[first:], classes, where=ground)

    def _objects(self) -> None:
        """Draw everything that stands on the ground, from far to near so that the near hides the far."""
        rng = self.rng
        things: list[tuple[float, float, _Paint]] = []
        for sign, wall in zip((-1, 1), self.wall, strict=True):
            strip = wall - self.kerb
            beside: list[tuple[_Paint, list[float], float]] = [
                (self._signpost, [rng.uniform(26, 40), rng.uniform(48, 66)], 0.1),
                (self._box, self._some(22, 70, 1, 2), 0.5),
                (self._pedestrian, self._some(14, 62, 0, 2), 0.3),
                (self._pedestrian, self._some(14, 62, 0, 2), 0.85),
                (self._tree, self._some(12, 48, 0, 2), 0.9),
            ]
            things += [(p, sign * (self.kerb + at * strip), paint) for paint, ps, at in beside for p in ps]
        for lane in (-0.72, 0.0, 0.72):
            things += [(p, lane * self.kerb, self._car) for p in self._some(16, 58, 0, 1)]
        for p, x, paint in sorted(things, key=lambda thing: thing[0]):
            paint(x, p * self.height / 160)

    def _some(self, low: float, high: float, fewest: int, most: int) -> list[float]:
        """Draw the depths of a random number of things."""
        return list(self.rng.uniform(low, high, size=self.rng.integers(fewest, most + 1)))

    def _signpost(self, x: float, p: float) -> None:
        colour = RED_SIGN if self.red_signs[int(x > 0)] else BLUE_SIGN
        self._rectangle(p, x, 0.07, (0.0, 1.2), METAL, POLE)
        self._ellipse(p, x, 0.42, (1.0, 1.42), (236, 236, 232), SIGN)
        self._ellipse(p, x, 0.36, (1.03, 1.39), colour, SIGN)
        self._rectangle(p, x, 0.22, (1.17, 1.25), (236, 236, 232), SIGN)

    def _box(self, x: float, p: float) -> None:
        """Draw a kiosk or a van: the signs across the street say which."""
        kind = KIOSK if self.red_signs[int(x < 0)] else VAN
        body = self._pick(BODIES)
        wide = 0.78 * self.lateral
        self._shadow(p, x, wide)
        self._rectangle(p, x, wide, (0.04, 1.0), body, kind)
        self._rectangle(p, x, wide, (0.92, 1.0), _scaled(body, 0.7), kind)
        self._rectangle(p, x, 0.84 * wide, (0.52, 0.84), GLASS, kind)
        self._rectangle(p, x, 0.04 * wide, (0.52, 0.84), body, kind)
        self._rectangle(p, x, 0.7 * wide, (0.16, 0.22), _scaled(body, 0.6), kind)

    def _car(self, x: float, p: float) -> None:
        body = self._pick(BODIES)
        wide = 0.42 * self.lateral
        self._shadow(p, x, wide)
        for wheel in (-0.36, 0.36):
            self._rectangle(p, x + wheel * wide, 0.18 * wide, (0.0, 0.14), TYRE, CAR)
        self._ellipse(p, x, 0.86 * wide, (0.2, 0.74), body, CAR)
        self._rectangle(p, x, wide, (0.08, 0.4), body, CAR)
        self._rectangle(p, x, 0.6 * wide, (0.42, 0.62), GLASS, CAR)
        for lamp in (-0.4, 0.4):
            self._rectangle(p, x + lamp * wide, 0.14 * wide, (0.27, 0.36), (222, 52, 40), CAR)

    def _pedestrian(self, x: float, p: float) -> None:
        clothes = self._pick(CLOTHES)
        self._shadow(p, x, 0.22)
        for leg in (-0.06, 0.06):
            self._rectangle(p, x + leg, 0.08, (0.0, 0.4), (50, 52, 66), PEDESTRIAN)
        self._ellipse(p, x, 0.27, (0.3, 0.8), clothes, PEDESTRIAN)
        self._ellipse(p, x, 0.14, (0.76, 0.96), SKIN, PEDESTRIAN)

    def _tree(self, x: float, p: float) -> None:
        self._rectangle(p, x, 0.09, (0.0, 1.0), (84, 66, 50), VEGETATION)
        for _ in range(4):
            v = self.rng.uniform(0.75, 1.0)
            shift = self.rng.uniform(-0.2, 0.2)
            colour = _scaled(GREEN, self.rng.uniform(0.75, 1.25))
            self._ellipse(p, x + shift, self.rng.uniform(0.35, 0.55), (v, v + 0.5), colour, VEGETATION)

    def _pick(self, colours: tuple[Colour, ...]) -> Colour:
        return _scaled(colours[self.rng.integers(len(colours))], self.rng.uniform(0.85, 1.12))

    def _shadow(self, p: float, x: float, wide: float) -> None:
        rows, columns, inside = self._inside(p, x, 1.25 * wide, (-0.07, 0.07))
        self.image[rows, columns] *= np.where(inside, 0.55, 1.0).astype(np.float32)[..., None]

    def _rectangle(self, p: float, x: float, wide: float, v: Interval, colour: Colour, kind: int) -> None:
        rows, columns = self._window(p, x, wide, v)
        self.image[rows, columns] = colour
        self.mask[rows, columns] = kind

    def _ellipse(self, p: float, x: float, wide: float, v: Interval, colour: Colour, kind: int) -> None:
        rows, columns, inside = self._inside(p, x, wide, v)
        self.image[rows, columns][inside] = colour
        self.mask[rows, columns][inside] = kind

    def _window(self, p: float, x: float, wide: float, v: Interval) -> tuple[slice, slice]:
        """Locate a rectangle at depth p, centred on lateral x and `wide` across, from height v[0] to v[1]."""
        rows = [round(self.horizon + (1 - height) * p) for height in (v[1], v[0])]
        columns = [round(self.vanishing_x + (x + half * wide) * p) for half in (-0.5, 0.5)]
        top, left = max(rows[0], 0), max(columns[0], 0)
        return slice(top, max(rows[1], rows[0] + 1, top)), slice(left, max(columns[1], columns[0] + 1, left))

    def _inside(self, p: float, x: float, wide: float, v: Interval) -> tuple[slice, slice, NDArray[np.bool_]]:
        """Locate the same rectangle, and tell which of its pixels are in the ellipse it bounds."""
        rows, columns = self._window(p, x, wide, v)
        y_unit = (np.arange(rows.start, min(rows.stop, self.height)) + 0.5 - self.horizon) / p
        x_unit = (np.arange(columns.start, min(columns.stop, self.width)) + 0.5 - self.vanishing_x) / p
        y_scaled = (y_unit - (1 - (v[0] + v[1]) / 2)) / ((v[1] - v[0]) / 2)
        x_scaled = (x_unit - x) / (wide / 2)
        return rows, columns, y_scaled[:, None] ** 2 + x_scaled[None] ** 2 <= 1

    def finish(self) -> tuple[Bytes, Bytes]:
        """Add the light of the hour and the noise of the camera, which say nothing about the classes."""
        light = self.rng.uniform(0.8, 1.1) * self.rng.uniform(0.95, 1.05, size=3)
        grain = _texture(self.rng, self.height, self.width, 1)
        self.image *= light.astype(np.float32)
        self.image *= (1 + 0.05 * grain)[..., None]
        return np.minimum(self.image, 255, out=self.image).astype(np.uint8), self.mask


def _scaled(colour: Colour, factor: float) -> Colour:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


@cache
def _tile() -> Floats:
    """Make noise of many scales, (512, 512), with mean 0 and deviation 1, that tiles without a seam."""
    frequency = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None])
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(np.random.default_rng(0).standard_normal((512, 512)))
    tile = np.fft.irfft2(white * frequency**-1.1, s=(512, 512))
    return np.ascontiguousarray(tile / tile.std(), dtype=np.float32)


def _texture(rng: np.random.Generator, height: int, width: int, step: float) -> Floats:
    """Cut a window of the tile at a random position, (H, W), its pixels `step` apart."""
    top, left = rng.integers(512, size=2)
    rows = (top + (np.arange(height) * step).astype(np.intp)) % 512
    columns = (left + (np.arange(width) * step).astype(np.intp)) % 512
    window: Floats = _tile()[rows[:, None], columns[None]]
    return window
