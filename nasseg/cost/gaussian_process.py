"""Regression by a Gaussian process (Rasmussen and Williams, 2006, §2.2, §5.1)."""

from __future__ import annotations

import math

import numpy as np

from nasseg.cost.calibration import Array

LENGTH, NOISE = 2.0, 0.05
"""Length scale, in units of the features, and deviation of the noise that the search for better ones begins with."""
LEAST_NOISE = 0.01
SWEEPS = 2
FACTORS = (0.25, 0.5, 2.0, 4.0)
MOST_POINTS = 400
"""Points from which scales and noise are found; all of them count in the prediction."""


def matern(distances: Array) -> Array:
    """Correlate values by the Matérn kernel with ν = 5/2 (equation 4.17): functions with bends."""
    scaled = math.sqrt(5) * distances
    correlation: Array = (1 + scaled + scaled**2 / 3) * np.exp(-scaled)
    return correlation


class GaussianProcess:
    """A fit of `values` (N,) at `points` (N, features).

    Each feature has a length scale of its own, unless one is `shared` by all, as few points with many features ask for.
    Length `scales` and, before them, deviation and noise are found by coordinate ascent of the marginal likelihood,
    which is deterministic and needs no gradient.
    """

    def __init__(self, points: Array, values: Array, *, shared: bool = False) -> None:
        self._offset = float(values.mean())
        rest = values - self._offset
        step = max(1, -(-len(values) // MOST_POINTS))
        self.scales = _best_scales(points[::step], rest[::step], shared)
        self._lengths = self.scales[2:]
        self._points = points / self._lengths
        self._weights = _solved(self._covariance(self._points, self._points), self.scales[1], rest)[0]

    def mean(self, points: Array) -> Array:
        """Predict the values (M,) at points (M, features)."""
        mean: Array = self._offset + self._covariance(points / self._lengths, self._points) @ self._weights
        return mean

    def deviation(self, points: Array, pending: Array) -> Array:
        """Compute the standard deviations (M,) at points (M, features), had the `pending` ones (P, features) values.

        Which values does not matter. Noise does not count.
        """
        known = np.concatenate([self._points, pending / self._lengths])
        towards = self._covariance(points / self._lengths, known)
        solved, _ = _solved(self._covariance(known, known), self.scales[1], towards.T)
        variance = self.scales[0] ** 2 - (towards * solved.T).sum(1)
        deviation: Array = np.sqrt(np.maximum(variance, 0))
        return deviation

    def _covariance(self, first: Array, second: Array) -> Array:
        covariance: Array = self.scales[0] ** 2 * matern(_distances(first, second))
        return covariance


def _best_scales(points: Array, values: Array, shared: bool) -> Array:
    """Find the deviation, the noise, then the length scales under which the values are likeliest."""
    scales = np.array([max(float(values.std()), NOISE), NOISE, *np.full(points.shape[1], LENGTH)])
    likelihood = _log_likelihood(scales, points, values)
    moving = [place for place, column in enumerate(points.T, start=2) if np.ptp(column) > 0]
    each = [moving] if shared else [[place] for place in moving]
    for places in [[0], [1], moving, *([[0], [1], *each] * SWEEPS)]:
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
    solved, log_determinant = _solved(scales[0] ** 2 * matern(_distances(scaled, scaled)), scales[1], values)
    return -0.5 * float(values @ solved) - 0.5 * log_determinant


def _solved(covariance: Array, noise: float, values: Array) -> tuple[Array, float]:
    """Solve (covariance + noise² · 1) x = values (N,) or (N, M); returns x and the matrix's log determinant."""
    lower = np.linalg.cholesky(covariance + noise**2 * np.eye(len(values)))
    solved = np.linalg.solve(lower.T, np.linalg.solve(lower, values))
    return solved, 2 * float(np.log(np.diag(lower)).sum())


def _distances(first: Array, second: Array) -> Array:
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    distances: Array = np.sqrt(np.maximum(squares, 0))
    return distances
