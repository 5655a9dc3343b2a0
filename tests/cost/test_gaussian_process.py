import numpy as np
import pytest

from nasseg.cost.gaussian_process import GaussianProcess


def smooth(points: np.ndarray) -> np.ndarray:
    return np.sin(points[:, 0]) + 0.3 * points[:, 1]


def test_a_smooth_function_is_found_between_its_points() -> None:
    rng = np.random.default_rng(0)
    points, others = rng.uniform(-3, 3, (80, 3)), rng.uniform(-2, 2, (30, 3))  # the third feature does not matter
    fit = GaussianProcess(points, smooth(points))
    assert fit.mean(others) == pytest.approx(smooth(others), abs=0.05)


def test_noise_is_smoothed_away() -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(-3, 3, (200, 2))
    noisy = smooth(points) + 0.2 * rng.normal(size=200)
    fit = GaussianProcess(points, noisy)
    errors = fit.mean(points) - smooth(points)
    assert np.abs(errors).mean() < 0.5 * np.abs(noisy - smooth(points)).mean()


def test_far_from_all_points_it_is_their_mean() -> None:
    fit = GaussianProcess(np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 4.0, 1.0]))
    assert fit.mean(np.array([[1e6]])) == pytest.approx(2.0)


def test_one_point_is_enough() -> None:
    fit = GaussianProcess(np.array([[1.0, 2.0]]), np.array([3.0]))
    assert fit.mean(np.array([[5.0, 5.0]])) == pytest.approx(3.0)


def by_formula(distance: float) -> float:
    return float((1 + 5**0.5 * distance + 5 / 3 * distance**2) * np.exp(-(5**0.5) * distance))


def test_mean_and_deviation_are_those_of_the_formula() -> None:
    """Rasmussen and Williams, equations 2.25, 2.26 and 4.17, with the scales that were found."""
    rng = np.random.default_rng(2)
    points, pending, others = rng.uniform(-2, 2, (20, 2)), rng.uniform(-2, 2, (3, 2)), rng.uniform(-3, 3, (7, 2))
    values = smooth(points) + 0.1 * rng.normal(size=20)
    fit = GaussianProcess(points, values, shared=True)
    deviation, noise, length, other_length = fit.scales

    def covariance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        distances = [[float(np.linalg.norm(a - b)) / length for b in second] for a in first]
        return np.array([[deviation**2 * by_formula(distance) for distance in row] for row in distances])

    assert length == other_length
    known = np.concatenate([points, pending])
    weights = np.linalg.inv(covariance(points, points) + noise**2 * np.eye(20)) @ (values - values.mean())
    assert fit.mean(others) == pytest.approx(values.mean() + covariance(others, points) @ weights)
    inverse = np.linalg.inv(covariance(known, known) + noise**2 * np.eye(23))
    variance = deviation**2 - np.diag(covariance(others, known) @ inverse @ covariance(known, others))
    assert fit.deviation(others, pending) == pytest.approx(np.sqrt(variance), rel=1e-5)
    assert (fit.deviation(others, pending) < fit.deviation(others, pending[:0])).all()
