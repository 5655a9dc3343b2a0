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


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ValueError, match="'long' is unknown: use one of short, stdc, deeplab"):
        recipe("long")
    with pytest.raises(ValueError, match="No paper's recipe is known for 'my-net'"):
        paper_recipe("my-net")
