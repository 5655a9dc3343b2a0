"""Regression by a Gaussian process with a length scale for each feature (Rasmussen and Williams, 2006, §2.2, §5.1)."""

from __future__ import annotations

import numpy as np

from nasseg.cost.calibration import Array

LENGTH, NOISE = 2.0, 0.05
"""Length scale, in units of the features, and deviation of the noise that the search for better ones begins with."""
LEAST_NOISE = 0.01
SWEEPS = 2
FACTORS = (0.25, 0.5, 2.0, 4.0)
MOST_POINTS = 400
"""Points from which scales and noise are found; all of them count in the prediction."""


class GaussianProcess:
    """A fit of `values` (N,) at `points` (N, features), with the squared-exponential kernel.

    Length scales, deviation and noise are found by coordinate ascent of the marginal likelihood, which is deterministic
    and needs no gradient.
    """

    def __init__(self, points: Array, values: Array) -> None:
        self._offset = float(values.mean())
        rest = values - self._offset
        step = max(1, -(-len(values) // MOST_POINTS))
        self._scales = _best_scales(points[::step], rest[::step])
        self._lengths = self._scales[2:]
        self._points = points / self._lengths
        self._weights = _solved(self._covariance(self._points, self._points), self._scales[1], rest)[0]

    def mean(self, point: Array) -> float:
        """Predict the value at a point (features,)."""
        covariance = self._covariance((point / self._lengths)[None], self._points)
        return self._offset + float(covariance[0] @ self._weights)

    def _covariance(self, first: Array, second: Array) -> Array:
        covariance: Array = self._scales[0] ** 2 * _correlation(first, second)
        return covariance


def _best_scales(points: Array, values: Array) -> Array:
    """Find the deviation, the noise, then the length scales under which the values are likeliest."""
    scales = np.array([max(float(values.std()), NOISE), NOISE, *np.full(points.shape[1], LENGTH)])
    likelihood = _log_likelihood(scales, points, values)
    moving = [place for place, column in enumerate(points.T, start=2) if np.ptp(column) > 0]
    for places in [[0], [1], moving, *([[0], [1], *([place] for place in moving)] * SWEEPS)]:
        for factor in FACTORS:
            tried = scales.copy()
            tried[places] *= factor
            tried[1] = max(tried[1], LEAST_NOISE)
            found = _log_likelihood(tried, points, values)
            if found > likelihood:
                scales, likelihood = tried, found
    return scales


def _log_likelihood(scales: Array, points: Array, values: Array) -> float:
    scaled = points / scales[2:]
    solved, log_determinant = _solved(scales[0] ** 2 * _correlation(scaled, scaled), scales[1], values)
    return -0.5 * float(values @ solved) - 0.5 * log_determinant


def _solved(covariance: Array, noise: float, values: Array) -> tuple[Array, float]:
    """Solve (covariance + noise² · 1) x = values; returns x and the matrix's log determinant."""
    lower = np.linalg.cholesky(covariance + noise**2 * np.eye(len(values)))
    solved = np.linalg.solve(lower.T, np.linalg.solve(lower, values))
    return solved, 2 * float(np.log(np.diag(lower)).sum())


def _correlation(first: Array, second: Array) -> Array:
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    correlation: Array = np.exp(-0.5 * np.maximum(squares, 0))
    return correlation
