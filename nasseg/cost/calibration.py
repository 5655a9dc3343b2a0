"""From the sum of operators' times to a network's latency, and the error of that on networks not fitted on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from nasseg.rank_correlation import spearman

FOLDS = 5

POOR_PERCENT, POOR_RANKING = 15.0, 0.7
"""A mean error above the one, or a rank correlation below the other, is poor. Counting multiply–adds, which needs no
measurement, was off by 19 % and ranked with 0.6 on a space for which a table's numbers were 5 % and 0.99."""
POOR = f"a table that is off by over {POOR_PERCENT:g} %, or ranks below {POOR_RANKING:g}, hardly tells which is faster"
ALIKE_PERCENT = 5.0
"""Networks that are predicted this well may be too much alike to be ranked: two measurements of one differ as much."""

Array = NDArray[np.float64]


class MeasuredNetwork(BaseModel):
    """A whole network: the sum of its operators' times, their number, and its measured latency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operators_ms: NonNegativeFloat
    nodes: PositiveInt
    latency_ms: PositiveFloat


class Calibration(BaseModel):
    """Latency = scale · sum of operators + per_node · number of nodes + fixed, in milliseconds; no term is negative."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: NonNegativeFloat = 1.0
    per_node_ms: NonNegativeFloat = 0.0
    fixed_ms: NonNegativeFloat = 0.0

    def latency_ms(self, operators_ms: float, nodes: int) -> float:
        """Predict the latency of a network whose `nodes` operators take `operators_ms` in total."""
        return self.scale * operators_ms + self.per_node_ms * nodes + self.fixed_ms

    @classmethod
    def fit(cls, networks: Sequence[MeasuredNetwork]) -> Calibration:
        """Fit the calibration with the least squared relative error on these networks."""
        terms = np.array([[n.operators_ms, n.nodes, 1.0] for n in networks])
        latency_ms = np.array([n.latency_ms for n in networks])
        scale, per_node_ms, fixed_ms = non_negative_least_squares(terms / latency_ms[:, None], np.ones(len(networks)))
        return cls(scale=scale, per_node_ms=per_node_ms, fixed_ms=fixed_ms)


class PredictionError(BaseModel):
    """The error of predictions against measurements: Spearman's rank correlation, mean absolute percentage error.

    The correlation is 0 if it is undefined, as when all predictions are equal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    networks: PositiveInt
    spearman: float = Field(ge=-1, le=1)
    mape_percent: NonNegativeFloat

    @classmethod
    def of(cls, predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> PredictionError:
        """Compare predictions with measurements of the same networks."""
        predicted, measured = np.asarray(predicted_ms), np.asarray(measured_ms)
        return cls(
            networks=len(measured),
            spearman=spearman(predicted, measured) or 0.0,
            mape_percent=float(np.mean(np.abs(predicted / measured - 1)) * 100),
        )

    @property
    def is_poor(self) -> bool:
        """Whether predictions say little about which network is the faster one."""
        ranks_badly = self.spearman < POOR_RANKING and self.mape_percent > ALIKE_PERCENT
        return self.mape_percent > POOR_PERCENT or ranks_badly

    def __str__(self) -> str:
        return (
            f"off by {self.mape_percent:.1f} % on average on networks that it was not fitted on, and ranks them with a "
            f"Spearman correlation of {self.spearman:.3f} ({self.networks} networks)"
        )

    @classmethod
    def cross_validated(cls, networks: Sequence[MeasuredNetwork]) -> PredictionError:
        """Compute the error on networks not fitted on: each fold is predicted from the others."""
        predicted = [0.0] * len(networks)
        for fold in range(FOLDS):
            fitted = Calibration.fit([n for index, n in enumerate(networks) if index % FOLDS != fold])
            for index in range(fold, len(networks), FOLDS):
                predicted[index] = fitted.latency_ms(networks[index].operators_ms, networks[index].nodes)
        return cls.of(predicted, [network.latency_ms for network in networks])


def non_negative_least_squares(terms: Array, target: Array) -> list[float]:
    """Find coefficients x ≥ 0 with the least squared error of `terms` (rows, few columns) · x = `target`.

    Some are zero and the others the plain solution for their columns, so every such choice of columns is tried.
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
