"""The time of operators that were not measured, interpolated from measured ones of the same kind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import numpy as np

from nasseg.cost.calibration import Array, non_negative_least_squares
from nasseg.cost.describe import Shape, operator_cost, values_moved
from nasseg.cost.gaussian_process import GaussianProcess
from nasseg.ops import Op
from nasseg.ops.base import Pair, as_pair

Call = tuple[Op, tuple[Shape, ...]]
LEAST_MS = 1e-4
LEAST_WINDOW = -2.0
"""Base-2 logarithm of the share of a map's side that a window covers; what is less counts as this."""
VECTOR_WIDTH = 16
"""Channels that kernels process together; the last ones of a map may leave a part of that unused."""


class Interpolation:
    """Fits of the time of operators, one for each kind, made when it is first needed.

    A fit is a · MAdds + b · values moved + c, none of them negative, times what a Gaussian process over the operator's
    fields and the logarithms of its shapes makes of the measured times' ratios to it.
    """

    def __init__(self, measured: Iterable[tuple[Call, float]]) -> None:
        """Take operators with their times in milliseconds."""
        self._measured: dict[str, list[tuple[Call, float]]] = {}
        for call, ms in measured:
            self._measured.setdefault(call[0].op, []).append((call, max(ms, LEAST_MS)))
        self._fits: dict[str, _Fit] = {}
        self._known: dict[Call, float] = {}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of operators that have a fit."""
        return tuple(self._measured)

    def ms(self, op: Op, inputs: tuple[Shape, ...]) -> float:
        """Predict the milliseconds that `op` takes on inputs of these shapes."""
        call = (op, inputs)
        if call not in self._known:
            if op.op not in self._fits:
                self._fits[op.op] = _Fit(self._measured[op.op])
            self._known[call] = self._fits[op.op].ms(call)
        return self._known[call]


class _Fit:
    """The fit of one kind."""

    def __init__(self, measured: Sequence[tuple[Call, float]]) -> None:
        calls, times = [call for call, _ in measured], np.array([ms for _, ms in measured])
        terms = np.array([_terms(call) for call in calls])
        self._coefficients = np.array(non_negative_least_squares(terms / times[:, None], np.ones(len(times))))
        self._names = sorted({name for call in calls for name, _ in _features(call)})
        points = np.array([self._point(call) for call in calls])
        self._ratios = GaussianProcess(points, np.log(times / self._rough_ms(terms)))

    def ms(self, call: Call) -> float:
        log_ratio = float(self._ratios.mean(self._point(call)[None])[0])
        return float(self._rough_ms(_terms(call)) * math.exp(log_ratio))

    def _rough_ms(self, terms: Array) -> Array:
        rough_ms: Array = np.maximum(terms @ self._coefficients, LEAST_MS)
        return rough_ms

    def _point(self, call: Call) -> Array:
        """Place an operator among those measured; features that none of them has are left out."""
        features = dict(_features(call))
        return np.array([features.get(name, 0.0) for name in self._names])


def _terms(call: Call) -> Array:
    return np.array([operator_cost(*call).madds / 1e9, values_moved(*call) / 1e6, 1.0])


def _features(call: Call) -> Iterator[tuple[str, float]]:
    """Yield what the time of an operator depends on, by name: its fields, and the base-2 logarithms of its sizes."""
    op, inputs = call
    cost = operator_cost(op, inputs)
    for name, value in op:
        yield from _field(name, value)
    channels, pixels = sum(shape[0] for shape in inputs), max(height * width for _, height, width in inputs)
    widths = {"input": channels, "output": cost.shape[0], "hidden": channels * getattr(op, "expansion", 1)}
    for name, width in widths.items():
        yield f"{name} channels", math.log2(width)
        yield f"{name} padding", math.log2(math.ceil(width / VECTOR_WIDTH) * VECTOR_WIDTH / width)
    kernels, rates = (cast("Pair", as_pair(getattr(op, name, 1))) for name in ("kernel", "rate"))
    for side, length, kernel, rate in zip(("height", "width"), inputs[0][1:], kernels, rates, strict=True):
        window = rate * (kernel - 1) + 1
        yield f"window in {side}", max(math.log2(window / length), LEAST_WINDOW)
        yield f"window beyond {side}", float(window > length)
    yield "inputs", math.log2(len(inputs))
    yield "input pixels", math.log2(pixels)
    yield "output pixels", math.log2(math.prod(cost.shape[1:]))
    yield "madds", math.log2(cost.madds + 1)
    yield "values", math.log2(values_moved(op, inputs))
    yield "weights", math.log2(cost.weights + 1)


def _field(name: str, value: object) -> Iterator[tuple[str, float]]:
    if isinstance(value, tuple):
        for place, part in enumerate(value):
            yield from _field(f"{name}[{place}]", part)
    elif isinstance(value, (int, float)):
        yield name, math.log2(value + 1) if value > 0 else float(value)
    else:
        yield f"{name}={value}", 1.0
