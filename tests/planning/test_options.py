from typing import Any

import pytest

from nasseg.planning.budget import Budget
from nasseg.planning.limits import Limits
from nasseg.planning.options import SearchOptions


def test_a_search_needs_no_options() -> None:
    options = SearchOptions()
    assert (options.space, options.data) == ("encoder_decoder", "streets")
    assert options.budget == Budget(amount=30, unit="min")
    assert (options.sampler, options.rungs, options.finalists) == (None, None, None)


def test_options_are_taken_as_they_are_written() -> None:
    options = SearchOptions.parse({"budget": "8cpu-h", "rungs": "60,180", "cost_weight": 0})
    assert (options.budget, options.rungs, options.cost_weight) == (Budget(amount=8, unit="cpu-h"), (60, 180), 0)
    assert SearchOptions.parse({"budget": Budget(amount=8, unit="cpu-h"), "rungs": [60, 180]}).rungs == (60, 180)


def test_every_option_is_explained() -> None:
    explained = {name: field.description or "" for name, field in SearchOptions.model_fields.items()}
    assert [name for name, text in explained.items() if not text.endswith(".")] == []


def test_a_validation_split_to_draw_leaves_the_rest_to_train_on() -> None:
    options = SearchOptions.parse({"val_split": "20%,by=_"})
    assert (options.train_split, options.val_split) == ("train@-20%,by=_", "train@20%,by=_")
    assert SearchOptions.parse(options.model_dump()) == options
    joined = SearchOptions.parse({"train_split": "train+val", "val_split": "10%"})
    assert (joined.train_split, joined.val_split) == ("train+val@-10%", "train+val@10%")


def test_limits_are_kept_as_they_were_written() -> None:
    options = SearchOptions(target_latency="20ms", max_memory="1GiB")
    assert options.limits == Limits(latency_ms=20, memory_bytes=2**30)
    assert options.target_latency == "20ms"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"rung": "60"}, "unknown option 'rung'; known: space, budget, "),
        ({"plan": None}, "unknown option 'plan'"),
        ({"budget": "200potatoes"}, "budget '200potatoes' must be a number and a unit"),
        ({"rungs": ()}, "rungs are (), but must be rising numbers of steps, like 60,180"),
        ({"rungs": "few"}, "rungs are 'few', but must be rising"),
        ({"rungs": (60, 60)}, "rungs are (60, 60), but must be rising"),
        ({"rungs": (0, 60)}, "rungs are (0, 60), but must be rising"),
        ({"rungs": 60}, "rungs are 60, but must be rising"),
        ({"rungs": (60.5, 180)}, "rungs[0] is 60.5, but must be a valid integer"),
        ({"full_steps": 0}, "full_steps is 0, but must be greater than or equal to 1"),
        ({"finalists": "3"}, "finalists is '3', but must be a valid integer"),
        ({"image_scale": 1.5}, "image_scale is 1.5, but must be less than or equal to 1"),
        ({"cost_weight": 1}, "cost_weight is 1, but must be less than or equal to 0"),
        ({"seed": -1}, "seed is -1, but must be greater than or equal to 0"),
        ({"strategy": "magic"}, "strategy is 'magic', but must be 'trials' or 'gradient'"),
        ({"relax_steps": 5}, "relax_steps is for strategy gradient; set that too, or leave it out"),
        ({"checkpoint_activations": False}, "checkpoint_activations is for strategy gradient"),
    ],
)
def test_a_mistake_is_one_line_with_the_option_the_value_and_the_rule(given: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        SearchOptions.parse(given)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    assert "more)" not in str(caught.value)
