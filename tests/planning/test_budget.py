import math

import pytest

from nasseg.planning.budget import Budget


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("200gpu-h", 200 * 3600 / 4),
        ("8cpu-h", 8 * 3600 / 2),
        ("30min", 1800),
        ("2h", 7200),
        ("90s", 90),
        ("0.5h", 1800),
    ],
)
def test_time_budgets_are_divided_by_the_devices_in_use(text: str, seconds: float) -> None:
    budget = Budget.parse(text)
    assert budget.wall_seconds(cores=2, gpus=4) == seconds
    assert budget.trials is None
    assert str(budget) == text


def test_trials_are_a_count_without_a_clock() -> None:
    assert Budget.parse("40trials").trials == 40
    assert Budget.parse("1trial") == Budget.parse("1trials")
    assert Budget.parse("40trials").wall_seconds(cores=2, gpus=0) == math.inf


@pytest.mark.parametrize("text", ["200potatoes", "0min", "-3h", "2.5trials", "", "h", "1e3s", "10 minutes"])
def test_a_wrong_budget_is_named_with_the_rule_and_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"^budget '.*' must be .*; write it like") as error:
        Budget.parse(text)
    assert repr(text) in str(error.value)


def test_gpu_hours_need_a_gpu() -> None:
    with pytest.raises(ValueError, match="budget 200gpu-h needs a GPU, and there is none; give cpu-h"):
        Budget.parse("200gpu-h").wall_seconds(cores=2, gpus=0)
