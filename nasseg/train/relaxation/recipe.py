"""The recipe of a relaxation's training, as data."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from nasseg.space.relaxation import RelaxationOptions
from nasseg.train.recipe import Share

ARCHITECTURE_START = 0.5
"""Auto-DeepLab's: epoch 20 of 40."""


class RelaxationRecipe(BaseModel):
    """The settings of a relaxation's training; the defaults are Auto-DeepLab's (arXiv 1901.02985, §5.1).

    The weights' learning rate follows a cosine. The architecture parameters are frozen for the first
    `architecture_start` of the steps, so that the weights are worth comparing first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: PositiveInt
    architecture_start: Share = Field(
        default=ARCHITECTURE_START, description="share of the steps before architecture updates"
    )
    batch_size: PositiveInt = Field(default=2, description="of either kind of update")
    crop: tuple[PositiveInt, PositiveInt] = Field(default=(321, 321), description="height and width in pixels")
    scale: tuple[PositiveFloat, PositiveFloat] = Field(default=(0.5, 2.0), description="random resizing, low and high")
    flip: bool = True
    colour: Share = 0.0

    learning_rate: PositiveFloat = 0.025
    final_learning_rate: PositiveFloat = 0.001
    momentum: Share = 0.9
    weight_decay: NonNegativeFloat = 3e-4
    architecture_learning_rate: PositiveFloat = 3e-3
    architecture_weight_decay: NonNegativeFloat = 1e-3
    cost_weight: Annotated[float, Field(le=0)] = Field(default=0.0, description="exponent of the cost in the objective")
    amp: bool = Field(default=True, description="mixed precision if the device is faster with it")
    options: RelaxationOptions = RelaxationOptions()

    @property
    def first_architecture_step(self) -> int:
        """The index of the first step that updates the architecture parameters."""
        return round(self.architecture_start * self.steps)

    def learning_rate_at(self, step: int) -> float:
        """Compute the weights' learning rate in the step of this index."""
        fall = (1 + math.cos(math.pi * step / self.steps)) / 2
        return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * fall
