"""From the sum of operators' times to the latency of a network, and how far off it is on networks it has not seen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from nasseg.rank_correlation import spearman

FOLDS = 5

Array = NDArray[np.float64]


class MeasuredNetwork(BaseModel):
    """A whole network: the sum of its operators' times, their number, and what it took as a whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operators_ms: NonNegativeFloat
    nodes: PositiveInt
    latency_ms: PositiveFloat


class Calibration(BaseModel):
    """latency = scale · sum of operators + per_node · number of nodes + fixed, in milliseconds; no part is negative."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: NonNegativeFloat = 1.0
    per_node_ms: NonNegativeFloat = 0.0
    fixed_ms: NonNegativeFloat = 0.0

    def latency_ms(self, operators_ms: float, nodes: int) -> float:
        """The latency of a network whose `nodes` operators take `operators_ms` in sum."""
        return self.scale * operators_ms + self.per_node_ms * nodes + self.fixed_ms

    @classmethod
    def fit(cls, networks: Sequence[MeasuredNetwork]) -> Calibration:
        """The calibration of least squared relative error on these networks."""
        terms = np.array([[n.operators_ms, n.nodes, 1.0] for n in networks])
        latency_ms = np.array([n.latency_ms for n in networks])
        scale, per_node_ms, fixed_ms = non_negative_least_squares(terms / latency_ms[:, None], np.ones(len(networks)))
        return cls(scale=scale, per_node_ms=per_node_ms, fixed_ms=fixed_ms)


class PredictionError(BaseModel):
    """How predictions compare with measurements: Spearman's rank correlation, mean absolute percentage error.

    The correlation is 0 where there is none, as where all predictions are equal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    networks: PositiveInt
    spearman: float = Field(ge=-1, le=1)
    mape_percent: NonNegativeFloat

    @classmethod
    def of(cls, predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> PredictionError:
        """The error of predictions against measurements of the same networks."""
        predicted, measured = np.asarray(predicted_ms), np.asarray(measured_ms)
        return cls(
            networks=len(measured),
            spearman=spearman(predicted, measured) or 0.0,
            mape_percent=float(np.mean(np.abs(predicted / measured - 1)) * 100),
        )

    @classmethod
    def cross_validated(cls, networks: Sequence[MeasuredNetwork]) -> PredictionError:
        """The error of calibrations on networks that each was not fitted on: every fold's by the other folds."""
        predicted = [0.0] * len(networks)
        for fold in range(FOLDS):
            fitted = Calibration.fit([n for index, n in enumerate(networks) if index % FOLDS != fold])
            for index in range(fold, len(networks), FOLDS):
                predicted[index] = fitted.latency_ms(networks[index].operators_ms, networks[index].nodes)
        return cls.of(predicted, [network.latency_ms for network in networks])


def non_negative_least_squares(terms: Array, target: Array) -> list[float]:
    """The coefficients, none negative, with the least squared error of `terms` (rows, few columns) · them = `target`.

    Some of them are zero, and the others are the plain solution for their columns: every such choice is tried.
    """
    columns = terms.shape[1]
    best, best_error = np.zeros(columns), float(target @ target)
    for used in itertools.product([False, True], repeat=columns):
        coefficients = np.zeros(columns)
        coefficients[list(used)] = np.linalg.lstsq(terms[:, list(used)], target, rcond=None)[0]
        error = float(np.sum((terms @ coefficients - target) ** 2))
        if coefficients.min() >= 0 and error < best_error:
            best, best_error = coefficients, error
    return [float(coefficient) for coefficient in best]
