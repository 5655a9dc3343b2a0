"""The small baselines learn four images by heart, through the trainer."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from nasseg import plugins
from nasseg.data import Batch
from nasseg.train.evaluate import evaluate
from nasseg.train.fit import seeded_network
from nasseg.train.recipe import Recipe
from nasseg.train.trainer import Trainer

CLASSES = 3
IGNORED = 255
BLOCK, BORDER = 32, 4


def four_images() -> Batch:
    """64x96 images of six coloured blocks each, whose classes are drawn by lot, with some noise.

    Pixels beside another block are not labelled: logits at a stride of 4 or 8 cannot follow the edges between blocks,
    and how near they come is a matter of luck.
    """
    generator = torch.Generator().manual_seed(0)

    def blocks(values: torch.Tensor) -> torch.Tensor:
        return values.repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)

    colours = blocks(torch.randn(4, 3, 2, 3, generator=generator))
    images = colours + 0.1 * torch.randn(colours.shape, generator=generator)
    masks = blocks(torch.randint(CLASSES, (4, 2, 3), generator=generator))
    inside = F.pad(torch.ones(BLOCK - 2 * BORDER, BLOCK - 2 * BORDER, dtype=torch.bool), [BORDER] * 4)
    return Batch({"image": images}, masks.where(inside.repeat(2, 3), IGNORED))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "learning_rate"),
    [
        pytest.param("unet", 45, 0.05, marks=pytest.mark.long),
        pytest.param("stdc1", 60, 0.05, marks=pytest.mark.long),
        ("deeplabv3plus-mobilenetv2", 60, 0.05),
    ],
)
def test_four_images_are_learnt_by_heart(name: str, steps: int, learning_rate: float) -> None:
    cpu, batch = torch.device("cpu"), four_images()
    recipe = Recipe(steps=steps, learning_rate=learning_rate, warmup_steps=5, weight_decay=0, ema_decay=0.7)
    trainer = Trainer(seeded_network(plugins.baseline(name, CLASSES), 0), recipe, steps, cpu, 0, IGNORED)

    def batches() -> Iterator[Batch]:
        while True:
            yield batch

    trainer.run(batches(), steps)
    assert evaluate(trainer.ema_network(), [batch], CLASSES, IGNORED, cpu).miou > 0.95
