"""Backbones that are a chain of inverted residuals: a strided stem, then stages of equal blocks."""

from collections.abc import Sequence
from typing import NamedTuple

from baselines.backbones.features import Features, rates_for_output_stride
from baselines.backbones.shape import Shape, StagePlan, kept, reshaped, stem_width
from nasseg.graph import Builder, PublishedBackbone
from nasseg.ops import Conv, InvertedResidual


class Layers(NamedTuple):
    """A published backbone: how its nodes are called (blocks by number), its stages, and its stem.

    The blocks' convolutions are padded and normalised as the stem's.
    """

    backbone: str
    scope: str
    stem_name: str
    block_name: str
    stages: Sequence[StagePlan]
    stem: Conv = Conv(out_channels=32, stride=2, activation="relu6")

    @property
    def published(self) -> PublishedBackbone:
        """The number and the channels of its last block tell it from its relatives."""
        last = self.stages[-1]
        block = self.block_name.format(last.first + last.blocks - 1)
        return PublishedBackbone(name=self.backbone, channels={f"{self.scope}.{block}.conv.2.weight": last.channels})


def published_stages(rows: Sequence[tuple[int, int, int, int, int]], first: int) -> list[StagePlan]:
    """Stages from rows of a paper's table: (expansion, channels, blocks, stride, kernel); blocks count from `first`."""
    stages = []
    for expansion, channels, blocks, stride, kernel in rows:
        stages.append(StagePlan(first, channels, blocks, stride, kernel, expansion))
        first += blocks
    return stages


def inverted_residuals(g: Builder, image: str, layers: Layers, output_stride: int, shape: Shape | None) -> Features:
    """Add the backbone in this shape. A block has the name of the published one whose weights it takes."""
    stages = reshaped(layers.stages, shape, layers.backbone)
    strides = [2, *(stage.stride if n == 0 else 1 for stage in stages for n in range(stage.blocks))]
    g.backbone = layers.published
    plan = iter(rates_for_output_stride(tuple(strides), output_stride))
    total, _ = next(plan)
    maps = {}
    with g.scope(layers.scope):
        stem = layers.stem.model_copy(update={"out_channels": kept(layers.stem.out_channels, stem_width(shape))})
        x = maps[total] = g.add(layers.stem_name, stem, image)
        for stage in stages:
            for number in range(stage.blocks):
                stride, rate = next(plan)
                rate *= stage.rate if stride == 1 else 1
                total *= stride
                name = layers.block_name.format(stage.first + number)
                x = maps[total] = g.add(name, _block(layers, stage, number, g.channels(x), stride, rate), x)
    return Features.of(maps)


def _block(layers: Layers, stage: StagePlan, number: int, in_channels: int, stride: int, rate: int) -> InvertedResidual:
    """A stage's first block adds no input, even where the shape gives it as many channels as the stage before."""
    assert stage.expansion is not None
    return InvertedResidual(
        out_channels=stage.channels,
        expansion=stage.expansion,
        stride=stride,
        rate=(rate, rate),
        kernel=stage.kernel,
        norm=layers.stem.norm,
        padding=layers.stem.padding,
        residual=number > 0 or stride > 1 or in_channels != stage.channels,
    )
