import pytest

from nasseg.train.recipes import RECIPES, paper_recipe, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_changes(name: str) -> None:
    assert recipe(name, crop=(64, 96), batch_size=3).crop == (64, 96)


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("stdc1", "stdc"),
        ("fcn8s", "fcn"),
        ("fcn-resnet50", "fcn"),
        ("unetplusplus", "unet"),
        ("deeplabv3plus-xception65", "deeplab"),
        ("dpc", "deeplab"),
        ("pspnet-resnet50", "pspnet"),
        ("auto_deeplab-s", "auto_deeplab"),
    ],
)
def test_paper_recipe(architecture: str, name: str) -> None:
    assert paper_recipe(architecture) == recipe(name)


def test_stdc_as_in_its_paper() -> None:
    r = paper_recipe("stdc2", batch_size=16)
    assert (r.batch_size, r.crop, r.scale, r.learning_rate) == (16, (512, 1024), (0.125, 1.5), 0.01)
    assert (r.loss, r.weight_decay, r.warmup_steps, r.head_multiplier, r.poly_power) == ("ohem", 5e-4, 1000, 10, 0.9)


def test_long_as_s2fpn_with_an_average_over_a_tenth_of_the_run() -> None:
    r = recipe("long")
    assert (r.steps, r.batch_size, r.optimizer, r.learning_rate, r.warmup_steps) == (9000, 8, "adamw", 3e-4, 500)
    assert (r.scale, r.flip, r.colour, r.poly_power) == ((0.75, 2.0), True, 0.0, 0.9)
    assert (r.ema_decay, recipe("long", steps=100).ema_decay) == pytest.approx((1 - 1 / 900, 0.9))


def test_no_paper_is_behind_our_own_recipes() -> None:
    for name in ("short", "long"):
        with pytest.raises(ValueError, match="No paper's recipe is known"):
            paper_recipe(name)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ValueError, match="'quick' is unknown: use one of short, long, stdc, deeplab"):
        recipe("quick")
    with pytest.raises(ValueError, match="No paper's recipe is known for 'my-net'"):
        paper_recipe("my-net")
