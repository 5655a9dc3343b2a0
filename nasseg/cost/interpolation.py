"""The time of operators that were not measured, interpolated from measured ones of the same kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from nasseg.cost.calibration import Array, non_negative_least_squares
from nasseg.cost.describe import Shape, operator_cost
from nasseg.ops import Op

Call = tuple[Op, tuple[Shape, ...]]
LEAST_MS = 1e-4


class Interpolation:
    """A fit for each kind of operator: time = a · MAdds + b · values moved + c, none of them negative."""

    def __init__(self, coefficients: Mapping[str, Sequence[float]]) -> None:
        self._coefficients = coefficients

    @classmethod
    def fit(cls, measured: Sequence[tuple[Call, float]]) -> Interpolation:
        """Fit operators with their times in milliseconds, by least squared relative error."""
        by_kind: dict[str, list[tuple[Call, float]]] = {}
        for call, ms in measured:
            by_kind.setdefault(call[0].op, []).append((call, ms))
        coefficients = {}
        for kind, group in by_kind.items():
            times = np.array([max(ms, LEAST_MS) for _, ms in group])
            terms = np.array([_terms(*call) for call, _ in group])
            coefficients[kind] = non_negative_least_squares(terms / times[:, None], np.ones(len(times)))
        return cls(coefficients)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of operators that have a fit."""
        return tuple(self._coefficients)

    def ms(self, op: Op, inputs: tuple[Shape, ...]) -> float:
        """Predict the milliseconds that `op` takes on inputs of these shapes."""
        return float(_terms(op, inputs) @ np.array(self._coefficients[op.op]))


def _terms(op: Op, inputs: tuple[Shape, ...]) -> Array:
    cost = operator_cost(op, inputs)
    values = cost.weights + sum(map(math.prod, (*inputs, cost.shape)))
    return np.array([cost.madds / 1e9, values / 1e6, 1.0])
