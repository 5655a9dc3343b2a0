"""ResNet (He et al., arXiv 1512.03385, table 1), without its classifier; a block strides in its 3×3 convolution."""

from collections.abc import Sequence
from typing import NamedTuple

from baselines.backbones.features import MULTI_GRID, Features, rates_for_output_stride, refuse_multi_grid
from nasseg.graph import Builder
from nasseg.ops import Activation, BasicBlock, Bottleneck, Conv, MaxPool


class Layers(NamedTuple):
    """The names of the four stages' outputs, at strides 4, 8, 16 and 32 unless the output stride is smaller."""

    layer1: str
    layer2: str
    layer3: str
    layer4: str


def resnet18(g: Builder, image: str, output_stride: int, *, multi_grid: bool = False) -> Features:
    """Add ResNet-18: 512 output channels, 64 low-level channels."""
    refuse_multi_grid(multi_grid, "resnet18")
    return _features(resnet(g, image, BasicBlock, (2, 2, 2, 2), output_stride))


def resnet50(g: Builder, image: str, output_stride: int, *, multi_grid: bool = False) -> Features:
    """Add ResNet-50: 2048 output channels, 256 low-level channels."""
    return _features(resnet50_layers(g, image, output_stride, multi_grid=multi_grid))


def resnet101(g: Builder, image: str, output_stride: int, *, multi_grid: bool = False) -> Features:
    """Add ResNet-101: 2048 output channels, 256 low-level channels."""
    return _features(resnet101_layers(g, image, output_stride, multi_grid=multi_grid))


def resnet50_layers(g: Builder, image: str, output_stride: int, *, multi_grid: bool = False) -> Layers:
    """Add ResNet-50 and return all four stages."""
    return resnet(g, image, Bottleneck, (3, 4, 6, 3), output_stride, multi_grid=multi_grid)


def resnet101_layers(g: Builder, image: str, output_stride: int, *, multi_grid: bool = False) -> Layers:
    """Add ResNet-101 and return all four stages."""
    return resnet(g, image, Bottleneck, (3, 4, 23, 3), output_stride, multi_grid=multi_grid)


def resnet(
    g: Builder,
    image: str,
    block: type[BasicBlock] | type[Bottleneck],
    repeats: Sequence[int],
    output_stride: int,
    *,
    multi_grid: bool = False,
) -> Layers:
    """Add the nodes `backbone.conv1` to `backbone.layer4`.

    If the stride ends early, the first block of a stage keeps the rate of the stage before, as in torchvision; with
    `multi_grid`, the blocks of `layer4` have its rate times 1, 2 and 4 instead (arXiv 1706.05587, §3.2.1).
    """
    strides = [2, 2] + [2 if repeat == 0 and layer else 1 for layer, n in enumerate(repeats) for repeat in range(n)]
    plan = rates_for_output_stride(tuple(strides), output_stride)
    if multi_grid:
        last_rate = plan[-1][1]
        plan[-3:] = [(stride, last_rate * unit) for (stride, _), unit in zip(plan[-3:], MULTI_GRID, strict=True)]
    blocks = iter(plan[2:])
    expansion = 4 if block is Bottleneck else 1
    outputs = []
    with g.scope("backbone"):
        x = g.add("conv1", Conv(out_channels=64, kernel=7, stride=2, norm="none", activation="none"), image)
        x = g.add("bn1", Activation(norm="batch", activation="none"), x)
        x = g.add("relu", Activation(), x)
        x = g.add("maxpool", MaxPool(stride=2), x)
        for layer, repeat in enumerate(repeats):
            for index in range(repeat):
                stride, rate = next(blocks)
                op = block(out_channels=64 * 2**layer * expansion, stride=stride, rate=(rate, rate))
                x = g.add(f"layer{layer + 1}.{index}", op, x)
            outputs.append(x)
    return Layers(*outputs)


def _features(layers: Layers) -> Features:
    return Features(output=layers.layer4, low_level=layers.layer1)
