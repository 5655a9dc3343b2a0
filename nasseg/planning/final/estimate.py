"""Who wins the final: estimates of mIoU that weigh end-to-end runs and proxies by their variances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from nasseg.planning.candidates import Trial
from nasseg.planning.job import Outcome

Array = NDArray[np.float64]

FEWEST = 3
"""Networks trained end to end below which their means alone count."""
DEVIATIONS = np.linspace(0.0, 4.0, 17)[1:]
"""Of networks about the line through their proxies, equally likely, in deviations between seeds."""
INFORMATIVE, SLOPE, SLOPE_DEVIATION = 0.3, 0.8, 0.3
"""How likely it is, before any is seen, that proxies tell anything of the final, and how much a point is worth then."""


def estimated_scores(trials: Iterable[Trial], top: int, score: Callable[[Outcome], float]) -> dict[Trial, float]:
    """Score those that were trained end to end by their estimated mIoU; `top` is the step of the top rung.

    Only `Trial.deciding` runs count. What is reported stays the mean of the runs.
    """
    ended = [trial for trial in trials if trial.standing is not None and trial.standing.end_to_end]
    mious = [[outcome.miou for outcome in trial.decisive if outcome.miou is not None] for trial in ended]
    proxies = [outcome.miou if (outcome := trial.proxy.get(top)) is not None else None for trial in ended]
    return {
        trial: score(trial.decisive[0].model_copy(update={"miou": miou}))
        for trial, miou in zip(ended, estimated_mious(mious, proxies), strict=True)
    }


def estimated_mious(runs: Sequence[Sequence[float]], proxies: Sequence[float | None]) -> list[float]:
    """Estimate the mIoU of networks from that of their end-to-end runs and, if known, of their proxies.

    Runs deviate from a network's mean by as much in all networks, and networks from a line through their proxies by
    another deviation, both normally. The line may be level: then proxies tell nothing, and estimates are drawn towards
    the mean of all, those of fewer runs more so. How likely that is, the slope and the deviation are weighed by the
    likelihood of what was measured (a hierarchical linear model; Gelman et al., Bayesian Data Analysis, 3rd edition,
    chapters 5 and 15). Without a network that was trained with two seeds, and of fewer than `FEWEST`, the means of the
    runs are returned.
    """
    means = np.array([np.mean(each) for each in runs])
    freedom = sum(len(each) - 1 for each in runs)
    squares = sum(float(np.var(each)) * len(each) for each in runs)
    if len(runs) < FEWEST or freedom == 0 or squares == 0:
        return [float(mean) for mean in means]
    variance = squares / freedom
    known = [proxy for proxy in proxies if proxy is not None]
    x = np.array([float(np.mean(known)) if proxy is None else proxy for proxy in proxies]) if known else 0.0 * means
    counts = np.array([len(each) for each in runs])
    level, sloped = (_given_slope(means, variance / counts, x, variance, informative) for informative in (False, True))
    weights = np.concatenate([level[0] + np.log(1 - INFORMATIVE), sloped[0] + np.log(INFORMATIVE)])
    weights = np.exp(weights - weights.max())
    estimates = np.concatenate([level[1], sloped[1]])
    return [float(estimate) for estimate in weights @ estimates / weights.sum()]


def _given_slope(means: Array, noise: Array, x: Array, variance: float, informative: bool) -> tuple[Array, Array]:
    """Return the log likelihood of each of `DEVIATIONS` (d,), and the estimates given it (d, networks)."""
    spread = variance * DEVIATIONS[:, None] ** 2
    weights = 1 / (noise + spread)
    total = weights.sum(1, keepdims=True)
    centre = (weights * means).sum(1, keepdims=True) / total
    dx, dy = x - (weights * x).sum(1, keepdims=True) / total, means - centre
    slope, penalty = np.zeros_like(total), np.zeros_like(total)
    if informative:
        precision = (weights * dx**2).sum(1, keepdims=True) + SLOPE_DEVIATION**-2
        slope = ((weights * dx * dy).sum(1, keepdims=True) + SLOPE / SLOPE_DEVIATION**2) / precision
        penalty = np.log(precision * SLOPE_DEVIATION**2) + ((slope - SLOPE) / SLOPE_DEVIATION) ** 2
    misfit = (weights * (dy - slope * dx) ** 2).sum(1, keepdims=True)
    likelihood = -0.5 * (-np.log(weights).sum(1, keepdims=True) + np.log(total) + penalty + misfit)
    share = spread * weights
    return likelihood[:, 0], share * means + (1 - share) * (centre + slope * dx)
