"""Recipes: everything about a training run except its network, its images and its length."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from nasseg.data.augment import Augment

Share = Annotated[float, Field(ge=0, lt=1)]

SGD_MOMENTUM = 0.9


class Recipe(BaseModel):
    """The settings of a training run. Presets are in `nasseg.train.recipes`.

    Networks are trained with SGD, or with AdamW (arXiv 1711.05101; PyTorch's betas), where weight decay is decoupled
    from the gradient. Biases and the parameters of norms have no weight decay. The learning rate is `learning_rate` for
    the stage `backbone` and `head_multiplier` times that for everything else; it rises linearly for `warmup_steps` (at
    most a tenth of the run) while it falls as (1 - step / total_steps) ** poly_power.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: PositiveInt = Field(description="usual length; the schedule stretches over whatever length a run has")
    batch_size: PositiveInt = 8
    crop: tuple[PositiveInt, PositiveInt] = Field(default=(240, 320), description="height and width in pixels")
    scale: tuple[PositiveFloat, PositiveFloat] = Field(default=(0.5, 2.0), description="random resizing, low and high")
    flip: bool = Field(default=True, description="mirror half of the images left to right")
    colour: Share = Field(default=0.0, description="strength of random brightness, contrast and saturation")

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: PositiveFloat = 0.01
    momentum: Share = Field(default=SGD_MOMENTUM, description="of SGD")
    nesterov: bool = Field(default=False, description="Nesterov's momentum in SGD")
    weight_decay: NonNegativeFloat = 1e-4
    warmup_steps: int = Field(default=0, ge=0)
    poly_power: NonNegativeFloat = Field(default=0.9, description="0 for a constant learning rate")
    head_multiplier: PositiveFloat = 1.0
    ema_decay: Share = Field(
        default=0.0, description="of the averaged weights, which are evaluated; 0 for the last ones"
    )

    loss: Literal["cross_entropy", "ohem"] = "cross_entropy"
    class_weights: tuple[NonNegativeFloat, ...] | None = None
    boundary_weight: NonNegativeFloat = Field(
        default=0.0, description="added to the weight, 1, of pixels within 2 pixels of another class"
    )
    auxiliary_weight: NonNegativeFloat = Field(default=0.4, description="of the loss of outputs `auxiliary...`")
    detail_weight: NonNegativeFloat = Field(default=1.0, description="of the detail loss of outputs `detail...`")
    teacher_weight: NonNegativeFloat = Field(default=1.0, description="of the distillation loss, if there is a teacher")
    detail_head: bool = Field(default=False, description="train a network that has none with STDC's detail head")
    accumulate: PositiveInt = Field(
        default=1, description="parts of a batch, one after the other, whose gradients are added up"
    )
    compile: bool = Field(default=False, description="compile the network's forward and backward pass (torch.compile)")
    amp: bool = Field(default=True, description="mixed precision if the device is faster with it")

    @property
    def augment(self) -> Augment:
        """The random views that a run trains on."""
        return Augment(crop=self.crop, scale=self.scale, flip=self.flip, colour=self.colour)

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate is {self.accumulate}, but a batch has {self.batch_size} images: at most one part each"
            )
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale is {self.scale}, but its low end must not exceed its high end: swap them")
        if self.optimizer != "sgd" and (self.nesterov or self.momentum != SGD_MOMENTUM):
            raise ValueError(f"momentum and nesterov are SGD's, but optimizer is {self.optimizer!r}: leave them out")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0: set momentum, or turn nesterov off")
        if self.class_weights is not None and self.loss != "cross_entropy":
            raise ValueError(f"class_weights do not apply to loss {self.loss!r}: use loss 'cross_entropy' with them")
        return self

    def learning_rate_factor(self, step: int, total_steps: int) -> float:
        """Compute the factor of all learning rates in the step of this index: warm-up times poly decay."""
        warmup_steps = min(self.warmup_steps, total_steps // 10)
        warmup = min(1.0, (step + 1) / (warmup_steps + 1))
        return float(warmup * max(0.0, 1 - step / total_steps) ** self.poly_power)
