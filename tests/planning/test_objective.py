import math

import pytest

from nasseg.planning.job import Costs, Outcome
from nasseg.planning.objective import Objective

OUTCOME = Outcome(key="a", status="ok", step=1, miou=0.6, madds=20, params=5, latency_ms=7.0)


def test_the_reference_scores_its_miou() -> None:
    assert Objective(reference_cost=5e9).score(0.7, 5e9) == 0.7


def test_twice_the_cost_must_bring_five_percent() -> None:
    objective = Objective(reference_cost=10)
    assert objective.score(0.7 * 1.05, 20) == pytest.approx(objective.score(0.7, 10), rel=1e-3)


def test_on_a_front_cheaper_than_the_reference_earns_nothing() -> None:
    front, score = (Objective(aim=aim, reference_cost=10) for aim in ("pareto", "score"))
    assert [front.score(0.5, cost) for cost in (0.1, 5, 10)] == [0.5] * 3
    assert score.score(0.35, 0.1) > 0.48
    assert front.score(0.5, 20) == score.score(0.5, 20) < 0.48


def test_weight_zero_ignores_the_cost() -> None:
    assert Objective(weight=0, reference_cost=10).score(0.5, 1e6) == 0.5


def test_costs_are_positive() -> None:
    with pytest.raises(ValueError, match="cost is 0; must be more than 0"):
        Objective(reference_cost=10).score(0.5, 0)


def test_one_objective_is_the_score_by_the_cost_in_its_unit() -> None:
    by_madds, by_latency = Objective(reference_cost=10), Objective(unit="ms", reference_cost=10)
    assert by_madds.values(OUTCOME) == (by_madds.score(0.6, 20),)
    assert by_latency.values(OUTCOME) == by_latency.metric_values(OUTCOME) == (by_latency.score(0.6, 7),)
    assert by_latency.metrics == {"score": "maximize"}


def test_a_front_has_two_objectives_that_are_both_maximised() -> None:
    objective = Objective(aim="pareto", unit="ms", reference_cost=10)
    assert objective.values(OUTCOME) == (0.6, -math.log(7))
    assert dict(zip(objective.metrics.items(), objective.metric_values(OUTCOME), strict=True)) == {
        ("mIoU", "maximize"): 0.6,
        ("ms", "minimize"): 7,
    }


def test_a_cost_that_is_not_known_has_no_value() -> None:
    with pytest.raises(ValueError, match="cost in ms is not known"):
        Objective(unit="ms", reference_cost=1).cost(Costs(madds=5))
