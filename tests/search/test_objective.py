import pytest

from nasseg.search.objective import Objective


def test_the_reference_scores_its_miou() -> None:
    assert Objective(reference_cost=5e9).score(0.7, 5e9) == 0.7


def test_twice_the_cost_must_bring_five_percent() -> None:
    objective = Objective(reference_cost=10)
    assert objective.score(0.7 * 1.05, 20) == pytest.approx(objective.score(0.7, 10), rel=1e-3)


def test_weight_zero_ignores_the_cost() -> None:
    assert Objective(weight=0, reference_cost=10).score(0.5, 1e6) == 0.5


def test_costs_are_positive() -> None:
    with pytest.raises(ValueError, match="cost is 0; must be more than 0"):
        Objective(reference_cost=10).score(0.5, 0)
