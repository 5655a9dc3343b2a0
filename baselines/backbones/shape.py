"""The shape of a backbone as data: what a network keeps of the published one, stage by stage."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

GRANULARITY = 8
"""Channels are multiples of this, as they are in the published backbones and as processors like them."""


class Stage(BaseModel):
    """What is kept of one stage of a published backbone; by default all of it.

    `width` is the share of its channels, `blocks` how many of its blocks, counted from the first. `kernel` is the size
    of its convolutions beyond 1×1, `expansion` how many times wider than their input inverted residuals are inside.
    An `atrous` stage has twice the rate in every block that does not stride, and so a larger field of view.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Annotated[float, Field(gt=0, le=1)] = 1.0
    blocks: Annotated[int, Field(ge=1)] | None = None
    kernel: Literal[3, 5, 7] | None = None
    expansion: Annotated[int, Field(ge=2)] | None = None
    atrous: bool = False


class Shape(BaseModel):
    """The stages of a backbone from the first to the one where the trunk ends.

    Layers before the first stage are as wide as it, in proportion to the published widths.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]


class StagePlan(NamedTuple):
    """A stage as it is built. `first` is the number of its first block in the published backbone.

    `expansion` is that of inverted residuals; `rate` multiplies the rates of the blocks that do not stride.
    """

    first: int
    channels: int
    blocks: int
    stride: int
    kernel: int = 3
    expansion: int | None = None
    rate: int = 1


def kept(channels: int, width: float) -> int:
    """The share `width` of `channels`, rounded to a multiple of 8 channels, at least one."""
    return channels if width == 1 else max(GRANULARITY, int(channels * width / GRANULARITY + 0.5) * GRANULARITY)


def reshaped(published: Sequence[StagePlan], shape: Shape | None, backbone: str) -> list[StagePlan]:
    """The stages of `shape`, from those of the published backbone; raises `ValueError` for what that does not have."""
    if shape is None:
        return list(published)
    if len(shape.stages) > len(published):
        raise ValueError(f"shape has {len(shape.stages)} stages, but must have at most {backbone}'s {len(published)}")
    plans = []
    for place, (plan, stage) in enumerate(zip(published, shape.stages, strict=False)):
        where = f"stages[{place}]"
        if stage.blocks is not None and stage.blocks > plan.blocks:
            raise ValueError(
                f"{where}.blocks is {stage.blocks}, but must be at most {backbone}'s {plan.blocks}: "
                "blocks can be left out, and none added"
            )
        if stage.expansion is not None and stage.expansion > (plan.expansion or 1):
            rule = "left out: its blocks expand nothing" if plan.expansion in (None, 1) else f"at most {plan.expansion}"
            raise ValueError(f"{where}.expansion is {stage.expansion}, but in {backbone} it must be {rule}")
        plans.append(
            plan._replace(
                channels=kept(plan.channels, stage.width),
                blocks=stage.blocks or plan.blocks,
                kernel=stage.kernel or plan.kernel,
                expansion=stage.expansion or plan.expansion,
                rate=2 if stage.atrous else 1,
            )
        )
    return plans


def stem_width(shape: Shape | None) -> float:
    """The share of channels that layers before the first stage keep."""
    return 1.0 if shape is None else shape.stages[0].width


def refuse_shape(shape: Shape | None, backbone: str) -> None:
    """Raise `ValueError` where a shape is asked of a backbone that has only the published one."""
    if shape is not None:
        raise ValueError(f"a shape is given, but {backbone} has only the published one: leave it out")
