"""How networks and relaxations are trained in a search: batches, crops, a relaxation's recipe."""

from __future__ import annotations

from typing import Any

import torch

from nasseg.data.resized import scaled
from nasseg.planning.options import SearchOptions
from nasseg.space.relaxation import RelaxationOptions
from nasseg.train.relaxation.recipe import ARCHITECTURE_START, RelaxationRecipe

LABEL_STRIDE = 4
"""At which proxy trainings see and are scored on masks."""
UPDATES_OF_AUTO_DEEPLAB = 15_000
"""Of α and β: 20 epochs over half of Cityscapes in batches of 2 (§5.1)."""


def batch_size(device: torch.device) -> int:
    """Images a step: what a GPU is fed well with, and what a CPU can afford."""
    return 16 if device.type == "cuda" else 8


def search_crop(size: tuple[int, int], image_scale: float) -> tuple[int, int]:
    """The crop that trainings of a search see: the scaled image, in multiples of 16 as far as that goes."""
    height, width = scaled(size, image_scale)
    return max(32, height // 16 * 16), max(32, width // 16 * 16)


def relaxation_options(options: SearchOptions, device: torch.device) -> RelaxationOptions:
    """Activations are computed again on GPUs unless said otherwise: there memory is dear and time is cheap."""
    again = options.checkpoint_activations
    return RelaxationOptions(
        partial_channels=options.partial_channels or 1,
        checkpoint_activations=device.type == "cuda" if again is None else again,
    )


def relax_recipe(device: torch.device, crop: tuple[int, int], **fields: Any) -> RelaxationRecipe:
    """How relaxations are trained beside networks on crops of size `crop`.

    A relaxation costs tens of times what one network does, so it gets a quarter of the images, and crops of half the
    height and width; Auto-DeepLab's are 2 images, cut to 20 % (§5.1). On processors its many small operators are faster
    in float32. A search with fewer updates of α and β takes larger ones, by the root of the ratio.
    """
    # Adam moves a parameter by no more than the learning rate a step.
    updates = fields["steps"] * (1 - fields.get("architecture_start", ARCHITECTURE_START))
    rate = 3e-3 * max(1.0, UPDATES_OF_AUTO_DEEPLAB / max(1, updates)) ** 0.5
    height, width = (min(full, max(64, full // 32 * 16)) for full in crop)
    return RelaxationRecipe(
        batch_size=batch_size(device) // 4,
        crop=(height, width),
        amp=device.type != "cpu",
        architecture_learning_rate=rate,
        **fields,
    )
