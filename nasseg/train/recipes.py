"""Named recipes. Each takes changes by keyword: `stdc(crop=(360, 480), batch_size=8)`.

Crops and lengths are the papers', chosen for their images: on smaller images and data sets, change both.
"""

from collections.abc import Callable

from nasseg.train.recipe import Recipe

Preset = Callable[..., Recipe]


def short(steps: int = 1000, **changes: object) -> Recipe:
    """Make the default recipe, for small data sets and short runs from a pretrained backbone.

    The average of the weights spans about a tenth of the run, whatever its length.
    """
    return Recipe.model_validate(
        {
            "steps": steps,
            "scale": (0.5, 2.0),
            "colour": 0.3,
            "learning_rate": 0.02,
            "nesterov": True,
            "warmup_steps": 100,
            "head_multiplier": 5.0,
            "ema_decay": _average_of_a_tenth(steps),
            **changes,
        }
    )


def long(steps: int = 9000, **changes: object) -> Recipe:
    """Make the recipe for long runs from a pretrained backbone: AdamW, random scales and flips.

    Batch size, learning rate, warm-up and scales are those of S2-FPN on CamVid (arXiv 2206.07298), which trains 8800
    steps with Adam. Decoupled weight decay and the average of the weights, as in `short`, are ours; its class weights
    are not included.
    """
    return Recipe.model_validate(
        {
            "steps": steps,
            "batch_size": 8,
            "scale": (0.75, 2.0),
            "optimizer": "adamw",
            "learning_rate": 3e-4,
            "weight_decay": 0.01,
            "warmup_steps": 500,
            "ema_decay": _average_of_a_tenth(steps),
            **changes,
        }
    )


def stdc(**changes: object) -> Recipe:
    """Make the recipe of STDC on Cityscapes (arXiv 2104.13188, section 4.2)."""
    return Recipe.model_validate(
        {
            "steps": 60_000,
            "batch_size": 48,
            "crop": (512, 1024),
            "scale": (0.125, 1.5),
            "colour": 0.5,
            "weight_decay": 5e-4,
            "warmup_steps": 1000,
            "head_multiplier": 10.0,
            "loss": "ohem",
            "auxiliary_weight": 1.0,
            **changes,
        }
    )


def deeplab(**changes: object) -> Recipe:
    """Make the recipe of DeepLabv3(+) and DPC on Cityscapes (arXiv 1706.05587, section 4; 1802.02611; 1809.04184)."""
    return Recipe.model_validate({"steps": 90_000, "batch_size": 16, "crop": (769, 769), **changes})


def fcn(**changes: object) -> Recipe:
    """Make the recipe of FCN on VGG16 (arXiv 1411.4038, section 4.3): a fixed learning rate, flips alone.

    The paper trains on whole images of about 500×500 pixels, 20 at a time, for 175 epochs of its 8498 images.
    """
    return Recipe.model_validate(
        {
            "steps": 75_000,
            "batch_size": 20,
            "crop": (500, 500),
            "scale": (1.0, 1.0),
            "learning_rate": 1e-4,
            "weight_decay": 5e-4,
            "poly_power": 0.0,
            **changes,
        }
    )


def unet(**changes: object) -> Recipe:
    """Make the recipe of U-Net (arXiv 1505.04597, section 3): one large tile per step and a momentum of 0.99.

    The paper names no learning rate, weight decay or length; these are ours. Its elastic deformations and its pixel
    weights between touching cells are not included.
    """
    return Recipe.model_validate(
        {
            "steps": 20_000,
            "batch_size": 1,
            "crop": (572, 572),
            "scale": (1.0, 1.0),
            "learning_rate": 1e-3,
            "momentum": 0.99,
            "warmup_steps": 500,
            **changes,
        }
    )


def pspnet(**changes: object) -> Recipe:
    """Make the recipe of PSPNet on Cityscapes (arXiv 1612.01105, section 5.1): auxiliary loss weighted by 0.4."""
    return Recipe.model_validate(
        {
            "steps": 90_000,
            "batch_size": 16,
            "crop": (713, 713),
            "head_multiplier": 10.0,
            "auxiliary_weight": 0.4,
            **changes,
        }
    )


def auto_deeplab(**changes: object) -> Recipe:
    """Make the recipe of Auto-DeepLab on Cityscapes, from scratch (arXiv 1901.02985, section 5.2).

    The batch size and everything else that the paper leaves open are DeepLab's. Scheduled drop path is not included.
    """
    return Recipe.model_validate(
        {"steps": 1_500_000, "batch_size": 16, "crop": (769, 769), "learning_rate": 0.05, **changes}
    )


RECIPES: dict[str, Preset] = {
    "short": short,
    "long": long,
    "stdc": stdc,
    "deeplab": deeplab,
    "fcn": fcn,
    "unet": unet,
    "pspnet": pspnet,
    "auto_deeplab": auto_deeplab,
}

OWN_RECIPES = ("short", "long")
"""Recipes for any images, which a retraining crops to their own size."""

PAPER_RECIPES: dict[str, Preset] = {name: RECIPES[name] for name in RECIPES if name not in OWN_RECIPES}
PAPER_RECIPES["dpc"] = deeplab
"""Recipes by the prefix of an architecture's name."""


def _average_of_a_tenth(steps: int) -> float:
    return max(0.0, 1 - 10 / steps)


def recipe(name: str, **changes: object) -> Recipe:
    """Make the recipe of this name, with changes; raises `ValueError` if the name is unknown."""
    if name not in RECIPES:
        raise ValueError(f"The recipe {name!r} is unknown: use one of {', '.join(RECIPES)}")
    return RECIPES[name](**changes)


def paper_recipe(architecture_name: str, **changes: object) -> Recipe:
    """Make the recipe of an architecture's own paper, found by its name; raises `ValueError` if none is known."""
    for beginning, preset in PAPER_RECIPES.items():
        if architecture_name.startswith(beginning):
            return preset(**changes)
    raise ValueError(
        f"No paper's recipe is known for {architecture_name!r}, only for {', '.join(PAPER_RECIPES)}: "
        f"name a recipe, one of {', '.join(RECIPES)}"
    )
