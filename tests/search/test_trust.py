import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional import kendall_rank_corrcoef, spearman_corrcoef

from nasseg.search.job import Candidate, Outcome, Trial
from nasseg.search.trust import kendall, measure_trust, pooled_deviation, spearman

pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=12)


@given(pairs)
def test_correlations_with_ties_agree_with_torchmetrics(points: list[tuple[int, int]]) -> None:
    x, y = [float(p[0]) for p in points], [float(p[1]) for p in points]
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert spearman(x, y) is None
        assert kendall(x, y) is None
    else:
        a, b = torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
        assert spearman(x, y) == pytest.approx(spearman_corrcoef(a, b).item(), abs=1e-5)
        assert kendall(x, y) == pytest.approx(kendall_rank_corrcoef(a, b, variant="b").item(), abs=1e-5)


def test_kendall_counts_ordered_pairs() -> None:
    x, y = [1, 2, 3, 4, 5], [3, 1, 2, 5, 4]
    ordered = [math.copysign(1, (x[i] - x[j]) * (y[i] - y[j])) for i, j in itertools.combinations(range(5), 2)]
    assert kendall(x, y) == pytest.approx(sum(ordered) / 10)


def test_two_points_have_no_order_worth_a_number() -> None:
    assert spearman([1, 2], [1, 2]) is None
    assert kendall([1, 2], [1, 2]) is None


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
        trials.append(Trial(Candidate(key=str(i), choice={}), proxy, full))
    trials.append(Trial(Candidate(key="x", choice={}), {10: Outcome(key="x", status="nonfinite", step=3)}))
    trust = measure_trust(trials, (10, 30))
    found = {(a.lower, a.upper): (a.points, a.spearman) for a in trust.agreements}
    assert found == {
        ("step 10", "step 30"): (4, pytest.approx(-1)),
        ("step 10", "end to end"): (3, pytest.approx(1)),
        ("step 30", "end to end"): (3, pytest.approx(-1)),
    }
    assert trust.seed_deviation == pytest.approx(math.sqrt(0.00005))
