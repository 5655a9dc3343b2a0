"""An encoder–decoder network as data: which part of a backbone it keeps, its context module, its decoder, its head."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from baselines.backbones import Shape, Stage
from baselines.backbones.stages import STAGES
from baselines.dense_prediction_cell import PUBLISHED, Cell
from nasseg.ops.base import Channels
from nasseg.space import Choice

BackboneName = Literal[
    "mobilenetv2", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "resnet18", "resnet50", "resnet101"
]
Context = Literal[
    "none",
    "image_pooling",
    "pyramid_pooling",
    "simple_pyramid_pooling",
    "aspp",
    "dense_prediction_cell",
    "strip_pooling",
    "gate",
    "attention_refinement",
    "self_attention",
    "global_filter",
]
Fusion = Literal["none", "add", "concat", "spatial_attention", "channel_attention", "feature_fusion"]
Lateral = Literal["none", "conv1x1", "conv3x3", "attention_refinement"]
Convolution = Literal["none", "conv1x1", "conv3x3", "separable3x3"]

STRIDES = (2, 4, 8, 16, 32)
"""Of the stages that a `Kept` is for, in order."""
DECODER_STRIDES = (16, 8, 4)
"""Of the backbone's maps that a decoder can take, from the deepest."""

Share = Annotated[float, Field(gt=0, le=1)]


class Kept(Choice):
    """What a network keeps of the backbone's stages at one stride.

    `width` is the share of the channels and `depth` that of the blocks, at least one of each stage. Kernels are at
    least `kernel`, expansions of inverted residuals at most `expansion`. `atrous` doubles the rates.
    """

    width: Share = 1.0
    depth: Share = 1.0
    kernel: Literal[3, 5, 7] = 3
    expansion: Annotated[int, Field(ge=2)] = 6
    atrous: bool = False


class Level(Choice):
    """How a decoder takes the backbone's map at one stride; it does not where `fusion` is "none".

    `lateral` is what the map passes before it meets the deeper map, with `width` channels, or `lateral_share` of them
    if they are concatenated. `width` is that of the level's output.
    """

    fusion: Fusion = "none"
    lateral: Lateral = "conv1x1"
    width: Channels = 128
    lateral_share: Share = 1.0


class Design(Choice):
    """An encoder–decoder network. `width` multiplies all channels; those of the backbone end at the published ones.

    The image is resized by `input_scale`. The trunk ends at the stride `trunk_end`, with the first `last_stages` stages
    there, at `output_stride` (atrous beyond it). The context module makes `context_width` channels of the deepest map;
    `cell` is its dense prediction cell, the published one if none is given.
    The decoder goes up through the levels it takes, each refined by `repeats` convolutions `refine`; `merge` "sum"
    adds up the maps of all levels. Logits come after the convolution `final`, on a map enlarged by `upsampling`.
    """

    width: Annotated[float, Field(gt=0, le=64)] = 1.0
    input_scale: Share = 1.0
    backbone: BackboneName = "mobilenetv2"
    trunk_end: Literal[16, 32] = 32
    last_stages: Literal[1, 2] = 2
    output_stride: Literal[8, 16, 32] = 32
    stages: tuple[Kept, ...] = (Kept(),) * len(STRIDES)
    context: Context = "none"
    context_width: Channels = 256
    cell: Cell | None = None
    level16: Level = Level()
    level8: Level = Level()
    level4: Level = Level()
    refine: Convolution = "none"
    repeats: Annotated[int, Field(ge=1, le=16)] = 1
    merge: Literal["last", "sum"] = "last"
    final: Convolution = "none"
    upsampling: Literal[1, 2] = 1

    @model_validator(mode="before")
    @classmethod
    def _with_cell(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        takes_cell, cell = data.get("context") == "dense_prediction_cell", data.get("cell")
        if cell is not None and not takes_cell:
            raise ValueError("cell is given, but context is not dense_prediction_cell; leave one out")
        return {**data, "cell": PUBLISHED} if takes_cell and cell is None else data

    @property
    def levels(self) -> list[tuple[int, Level]]:
        """The levels that the decoder takes with their strides, from the deepest."""
        levels = zip(DECODER_STRIDES, (self.level16, self.level8, self.level4), strict=True)
        return [(stride, level) for stride, level in levels if level.fusion != "none" and stride < self.output_stride]

    @property
    def shape(self) -> Shape:
        """The backbone's shape."""
        published = STAGES[self.backbone]
        plans = list(zip(published.strides, published.plans, strict=True))
        end = [stride for stride, _ in plans].index(self.trunk_end) + self.last_stages
        stages = []
        for stride, plan in plans[:end]:
            if stride > self.trunk_end:
                break
            kept = self.stages[STRIDES.index(stride)]
            expands = plan.expansion is not None and plan.expansion > 1
            stages.append(
                Stage(
                    width=min(1.0, kept.width * self.width),
                    blocks=max(1, round(kept.depth * plan.blocks)),
                    kernel=max(kept.kernel, plan.kernel),
                    expansion=min(kept.expansion, plan.expansion) if expands and plan.expansion else None,
                    atrous=kept.atrous,
                )
            )
        return Shape(stages=tuple(stages))
