import pytest
from pydantic import ValidationError

from nasseg.train.recipe import Recipe


def test_poly_schedule() -> None:
    recipe = Recipe(steps=10, poly_power=0.9)
    assert [recipe.learning_rate_factor(step, 10) for step in (0, 5, 10)] == pytest.approx([1, 0.5**0.9, 0])


def test_warm_up_rises_to_the_poly_schedule() -> None:
    recipe = Recipe(steps=100, warmup_steps=4, poly_power=0)
    assert [recipe.learning_rate_factor(step, 100) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_warm_up_takes_a_tenth_of_a_short_run() -> None:
    recipe = Recipe(steps=1000, warmup_steps=1000, poly_power=0)
    assert [recipe.learning_rate_factor(step, 20) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert recipe.learning_rate_factor(0, 5) == 1


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"scale": (2.0, 0.5)}, "low end must not exceed its high end"),
        ({"optimizer": "adamw", "nesterov": True}, "momentum and nesterov are SGD's, but optimizer is 'adamw'"),
        ({"optimizer": "adamw", "momentum": 0.5}, "momentum and nesterov are SGD's, but optimizer is 'adamw'"),
        ({"optimizer": "adam"}, "'sgd' or 'adamw'"),
        ({"boundary_weight": -1.0}, "greater than or equal to 0"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov needs a momentum above 0"),
        ({"loss": "ohem", "class_weights": (1.0, 2.0)}, "class_weights do not apply to loss 'ohem'"),
        ({"momentum": 1.0}, "less than 1"),
        ({"lerning_rate": 0.1}, "Extra inputs"),
    ],
)
def test_mistakes(changes: dict[str, object], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        Recipe.model_validate({"steps": 10, **changes})


@pytest.mark.parametrize(
    "recipe", [Recipe(steps=7, class_weights=(1.0, 0.5)), Recipe(steps=7, optimizer="adamw", detail_head=True)]
)
def test_survives_json(recipe: Recipe) -> None:
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_recipe_of_an_older_file_means_the_same() -> None:
    old = Recipe.model_validate({"steps": 7, "learning_rate": 0.02, "momentum": 0.5, "nesterov": True})
    assert (old.optimizer, old.boundary_weight, old.detail_head) == ("sgd", 0.0, False)
