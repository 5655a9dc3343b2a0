import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional import kendall_rank_corrcoef, spearman_corrcoef

from nasseg.rank_correlation import kendall, spearman

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


def test_spearman_by_hand() -> None:
    assert spearman([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(1 - 6 * 4 / (4 * 15))
    assert spearman([1, 2, 3], [9, 5, 1]) == -1
    assert spearman([1, 1, 3], [1, 2, 3]) == pytest.approx(0.75**0.5)  # ranks 1.5, 1.5, 3
