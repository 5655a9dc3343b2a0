"""Who wins, by end-to-end runs and proxies together."""

import math
import random
from statistics import fmean

import numpy as np
import pytest

from nasseg.planning.candidates import FIRST_FRESH_SEED, Trial
from nasseg.planning.final.estimate import (
    DEVIATIONS,
    INFORMATIVE,
    SLOPE,
    SLOPE_DEVIATION,
    estimated_mious,
    estimated_scores,
)
from nasseg.planning.job import Outcome
from tests.planning.made_up import Cell, candidate_of

RUNS = [[0.31, 0.35], [0.30, 0.28], [0.33], [0.27, 0.29, 0.28]]
PROXIES = [0.29, 0.30, 0.28, 0.25]


def by_brute_force(runs: list[list[float]], proxies: list[float]) -> list[float]:
    """Integrate the model numerically: over the slope on a grid, and over the level by its normal distribution."""
    freedom = sum(len(each) - 1 for each in runs)
    variance = sum((value - fmean(each)) ** 2 for each in runs for value in each) / freedom
    means = np.array([fmean(each) for each in runs])
    noise = variance / np.array([len(each) for each in runs])
    x = np.array(proxies)
    slopes = np.linspace(SLOPE - 8 * SLOPE_DEVIATION, SLOPE + 8 * SLOPE_DEVIATION, 401)
    density = np.exp(-0.5 * ((slopes - SLOPE) / SLOPE_DEVIATION) ** 2)
    parts = [(0.0, 1 - INFORMATIVE), *zip(slopes, INFORMATIVE * density / density.sum(), strict=True)]
    total, estimates = 0.0, np.zeros(len(runs))
    for deviation in DEVIATIONS:
        spread = (deviation**2) * variance
        for slope, weight in parts:
            rest = means - slope * x
            precision = 1 / (noise + spread)
            level = (precision * rest).sum() / precision.sum()
            # A level line of any height is as likely before.
            likelihood = math.prod(
                math.exp(-0.5 * p * (r - level) ** 2) * p**0.5 for p, r in zip(precision, rest, strict=True)
            )
            likelihood *= weight / precision.sum() ** 0.5
            share = spread * precision
            estimates += likelihood * (share * means + (1 - share) * (level + slope * x))
            total += likelihood
    return list(estimates / total)


def test_estimates_are_those_of_the_model_integrated_by_brute_force() -> None:
    assert estimated_mious(RUNS, PROXIES) == pytest.approx(by_brute_force(RUNS, PROXIES), abs=1e-5)


def test_with_little_data_the_means_count() -> None:
    assert estimated_mious([[each[0]] for each in RUNS], PROXIES) == [each[0] for each in RUNS]
    assert estimated_mious(RUNS[:2], PROXIES[:2]) == [fmean(each) for each in RUNS[:2]]
    assert estimated_mious([[0.3, 0.3], [0.2, 0.2], [0.1]], [0.1, 0.2, 0.3]) == pytest.approx([0.3, 0.2, 0.1])


def test_a_lucky_single_run_is_drawn_to_the_others_and_proxies_break_what_is_nearly_a_tie() -> None:
    runs = [[0.30, 0.34], [0.31, 0.27], [0.29, 0.33], [0.335]]
    estimates = estimated_mious(runs, [None, None, None, None])
    assert 0.31 < estimates[3] < 0.325
    rng = random.Random(0)
    true = [0.28, 0.29, 0.30, 0.31, 0.32, 0.33]
    noisy = [[rng.gauss(value, 0.01) for _ in range(2)] for value in true]
    noisy[-1] = [0.325, 0.329]
    noisy[-2] = [0.326, 0.330]
    assert noisy[-2] > noisy[-1]
    estimates = estimated_mious(noisy, true)
    assert max(range(6), key=estimates.__getitem__) == 5


def trial(number: int, runs: dict[int, float], proxy: dict[int, float], madds: int = 100) -> Trial:
    cell = Cell(branches=(number,))
    made = Trial(candidate_of(cell), cell, number)
    for outcomes, found in ((made.full, runs), (made.proxy, proxy)):
        for step, miou in found.items():
            outcomes[step] = Outcome(key=made.key, status="ok", step=step, miou=miou, madds=madds)
    return made


def test_the_score_is_that_of_the_estimate_and_fresh_seeds_decide_nothing() -> None:
    trials = [
        trial(n, dict(enumerate(each)), {90: proxy}, madds=100 + n)
        for n, (each, proxy) in enumerate(zip(RUNS, PROXIES, strict=True))
    ]
    not_ended = trial(9, {}, {90: 0.9})

    def score(outcome: Outcome) -> float:
        return (outcome.miou or 0.0) / (outcome.madds or 1)

    found = estimated_scores([*trials, not_ended], 90, score)
    expected = [miou / (100 + n) for n, miou in enumerate(estimated_mious(RUNS, PROXIES))]
    assert list(found.values()) == pytest.approx(expected)
    assert list(found) == trials
    trials[0].full[FIRST_FRESH_SEED] = Outcome(key=trials[0].key, status="ok", step=1, miou=0.9, madds=100)
    assert estimated_scores(trials, 90, score) == found
    assert estimated_scores([], 90, score) == {}
