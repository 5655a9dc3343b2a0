import math

import numpy as np
import pytest

from nasseg.experiment.trust import measure_trust, pooled_deviation
from nasseg.planning.candidates import Trial
from nasseg.planning.job import Candidate, Outcome
from tests.planning.made_up import Cell

CHOICE = Cell(branches=(0,))


def test_pooled_deviation_is_the_root_of_the_mean_variance() -> None:
    groups = [[1.0, 3.0, 2.0], [5.0, 5.5, 6.0], [9.0]]
    expected = math.sqrt((np.var(groups[0], ddof=1) + np.var(groups[1], ddof=1)) / 2)
    assert pooled_deviation(groups) == pytest.approx(expected)
    assert pooled_deviation([[1.0], []]) is None


def test_each_rung_is_compared_over_the_candidates_that_reached_both() -> None:
    def outcome(key: str, step: int, miou: float) -> Outcome:
        return Outcome(key=key, status="ok", step=step, miou=miou)

    trials = []
    for i in range(5):
        proxy = {10: outcome(str(i), 10, i / 10)}
        if i:
            proxy[30] = outcome(str(i), 30, 0.5 - i / 10)
        full = {seed: outcome(str(i), 99, i / 10 + seed / 100) for seed in range(2)} if i > 1 else {}
        trials.append(Trial(Candidate(key=str(i), choice={}), CHOICE, proxy=proxy, full=full))
    trials.append(
        Trial(Candidate(key="x", choice={}), CHOICE, proxy={10: Outcome(key="x", status="nonfinite", step=3)})
    )
    trust = measure_trust(trials, (10, 30))
    found = {(a.lower, a.upper): (a.points, a.spearman) for a in trust.agreements}
    assert found == {
        ("step 10", "step 30"): (4, pytest.approx(-1)),
        ("step 10", "end to end"): (3, pytest.approx(1)),
        ("step 30", "end to end"): (3, pytest.approx(-1)),
    }
    assert trust.seed_deviation == pytest.approx(math.sqrt(0.00005))
