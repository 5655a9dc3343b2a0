import numpy as np
import pytest

from nasseg.cost.gaussian_process import GaussianProcess


def smooth(points: np.ndarray) -> np.ndarray:
    return np.sin(points[:, 0]) + 0.3 * points[:, 1]


def test_a_smooth_function_is_found_between_its_points() -> None:
    rng = np.random.default_rng(0)
    points, others = rng.uniform(-3, 3, (80, 3)), rng.uniform(-2, 2, (30, 3))  # the third feature does not matter
    fit = GaussianProcess(points, smooth(points))
    assert np.array([fit.mean(point) for point in others]) == pytest.approx(smooth(others), abs=0.05)


def test_noise_is_smoothed_away() -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(-3, 3, (200, 2))
    noisy = smooth(points) + 0.2 * rng.normal(size=200)
    fit = GaussianProcess(points, noisy)
    errors = np.array([fit.mean(point) for point in points]) - smooth(points)
    assert np.abs(errors).mean() < 0.5 * np.abs(noisy - smooth(points)).mean()


def test_far_from_all_points_it_is_their_mean() -> None:
    fit = GaussianProcess(np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 4.0, 1.0]))
    assert fit.mean(np.array([1e6])) == pytest.approx(2.0)


def test_one_point_is_enough() -> None:
    fit = GaussianProcess(np.array([[1.0, 2.0]]), np.array([3.0]))
    assert fit.mean(np.array([5.0, 5.0])) == pytest.approx(3.0)
