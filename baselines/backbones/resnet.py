"""ResNet (He et al., arXiv 1512.03385, table 1), without its classifier; a block strides in its k×k convolution."""

from typing import NamedTuple

from baselines.backbones.features import MULTI_GRID, Features, rates_for_output_stride, refuse_multi_grid
from baselines.backbones.shape import Shape, StagePlan, kept, reshaped, stem_width
from nasseg.graph import Builder, PublishedBackbone
from nasseg.ops import Activation, BasicBlock, Bottleneck, Conv, MaxPool


class Layers(NamedTuple):
    """The names of the four stages' outputs, at strides 4, 8, 16 and 32 unless the output stride is smaller."""

    layer1: str
    layer2: str
    layer3: str
    layer4: str


def resnet18(
    g: Builder, image: str, output_stride: int, *, multi_grid: bool = False, shape: Shape | None = None
) -> Features:
    """ResNet-18: 512 output channels, 64 low-level channels."""
    refuse_multi_grid(multi_grid, "resnet18")
    return resnet(g, image, "resnet18", output_stride, shape=shape)[1]


def resnet50(
    g: Builder, image: str, output_stride: int, *, multi_grid: bool = False, shape: Shape | None = None
) -> Features:
    """ResNet-50: 2048 output channels, 256 low-level channels."""
    return resnet(g, image, "resnet50", output_stride, multi_grid=multi_grid, shape=shape)[1]


def resnet101(
    g: Builder, image: str, output_stride: int, *, multi_grid: bool = False, shape: Shape | None = None
) -> Features:
    """ResNet-101: 2048 output channels, 256 low-level channels."""
    return resnet(g, image, "resnet101", output_stride, multi_grid=multi_grid, shape=shape)[1]


def resnet50_layers(g: Builder, image: str, output_stride: int) -> Layers:
    """ResNet-50, all four stages."""
    return Layers(*resnet(g, image, "resnet50", output_stride)[0])


def resnet101_layers(g: Builder, image: str, output_stride: int) -> Layers:
    """ResNet-101, all four stages."""
    return Layers(*resnet(g, image, "resnet101", output_stride)[0])


class _Published(NamedTuple):
    block: type[BasicBlock] | type[Bottleneck]
    repeats: tuple[int, int, int, int]

    def backbone(self, name: str) -> PublishedBackbone:
        """The depth of each stage and the channels of its last block tell it from its relatives."""
        last = "conv3" if self.block is Bottleneck else "conv2"
        channels = {}
        for place, stage in enumerate(self.stages, 1):
            end = f"backbone.layer{place}.{stage.blocks - 1}"
            channels[f"{end}.conv1.weight"] = stage.channels
            channels[f"{end}.{last}.weight"] = stage.channels * self.outer
            channels[f"backbone.layer{place}.{stage.blocks}.conv1.weight"] = 0
        return PublishedBackbone(name=name, channels=channels)

    @property
    def outer(self) -> int:
        """How many times wider a block's output is than its k×k convolution."""
        return 4 if self.block is Bottleneck else 1

    @property
    def stages(self) -> list[StagePlan]:
        """The width of a stage is that of its k×k convolutions."""
        return [StagePlan(0, 64 * 2**place, blocks, 2 if place else 1) for place, blocks in enumerate(self.repeats)]


PUBLISHED = {
    "resnet18": _Published(BasicBlock, (2, 2, 2, 2)),
    "resnet50": _Published(Bottleneck, (3, 4, 6, 3)),
    "resnet101": _Published(Bottleneck, (3, 4, 23, 3)),
}


def resnet(
    g: Builder, image: str, name: str, output_stride: int, *, multi_grid: bool = False, shape: Shape | None = None
) -> tuple[list[str], Features]:
    """Add the nodes `backbone.conv1` to `backbone.layer4`: the stages' outputs, and the features.

    If the stride ends early, the first block of a stage keeps the rate of the stage before, as in torchvision; with
    `multi_grid`, the blocks of `layer4` have its rate times 1, 2 and 4 instead (arXiv 1706.05587, §3.2.1).
    """
    published = PUBLISHED[name]
    g.backbone = published.backbone(name)
    stages = reshaped(published.stages, shape, name)
    if multi_grid and [stage.blocks for stage in stages[3:]] != [len(MULTI_GRID)]:
        raise ValueError(f"multi_grid is true, but must be false on this shape: its {name} has not all of layer4")
    strides = [2, 2, *(stage.stride if n == 0 else 1 for stage in stages for n in range(stage.blocks))]
    plan = rates_for_output_stride(tuple(strides), output_stride)
    if multi_grid:
        last_rate = plan[-1][1]
        plan[-3:] = [(stride, last_rate * unit) for (stride, _), unit in zip(plan[-3:], MULTI_GRID, strict=True)]
    blocks = iter(plan[2:])
    outputs, maps, total = [], {}, 4
    with g.scope("backbone"):
        stem = kept(64, stem_width(shape))
        x = g.add("conv1", Conv(out_channels=stem, kernel=7, stride=2, norm="none", activation="none"), image)
        x = g.add("bn1", Activation(norm="batch", activation="none"), x)
        x = g.add("relu", Activation(), x)
        x = g.add("maxpool", MaxPool(stride=2), x)
        for place, stage in enumerate(stages):
            for index in range(stage.blocks):
                stride, rate = next(blocks)
                rate *= stage.rate if stride == 1 else 1
                total *= stride
                channels = stage.channels * published.outer
                # A stage's first block projects, even where the shape gives it as many channels as the stage before.
                projection = index == 0 and place > 0 and stride == 1 and g.channels(x) == channels
                op = published.block(
                    out_channels=channels, stride=stride, rate=(rate, rate), kernel=stage.kernel, projection=projection
                )
                x = maps[total] = g.add(f"layer{place + 1}.{index}", op, x)
            outputs.append(x)
    return outputs, Features.of(maps)
