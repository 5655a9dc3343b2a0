"""Modified Xception (Chen et al., DeepLabV3+, arXiv 1802.02611, §3.2 and figure 4), without its classifier.

Compared with Xception (Chollet, arXiv 1610.02357): deeper, stride-2 separable convolutions instead of max pools, and
batch norm and ReLU after each depthwise 3×3 too. The authors' released code omits the latter ReLU in all but the last
three separable convolutions; this follows the paper. Parameters are the same.
"""

from typing import NamedTuple

from baselines.backbones.features import MULTI_GRID, Features, rates_for_output_stride
from baselines.backbones.shape import Shape, refuse_shape
from nasseg.graph import Builder
from nasseg.ops import Add, Conv, SeparableConv


class Block(NamedTuple):
    """Three separable convolutions, the last with the stride, and a shortcut around them."""

    name: str
    channels: tuple[int, int, int]
    stride: int = 1


def _same(name: str, channels: int, stride: int = 1) -> Block:
    return Block(name, (channels, channels, channels), stride)


ENTRY_65 = (_same("entry.block1", 128, 2), _same("entry.block2", 256, 2), _same("entry.block3", 728, 2))
ENTRY_71 = (
    _same("entry.block1", 128, 2),
    _same("entry.block2", 256),
    _same("entry.block3", 256, 2),
    _same("entry.block4", 728),
    _same("entry.block5", 728, 2),
)
MIDDLE = tuple(_same(f"middle.block{index}", 728) for index in range(1, 17))
EXIT = Block("exit.block1", (728, 1024, 1024), 2)
LAST = (1536, 1536, 2048)


def xception65(
    g: Builder, image: str, output_stride: int, *, multi_grid: bool = False, shape: Shape | None = None
) -> Features:
    """Xception-65: 2048 output channels, 256 low-level channels."""
    refuse_shape(shape, "xception65")
    return _xception(g, image, ENTRY_65, output_stride, multi_grid)


def xception71(
    g: Builder, image: str, output_stride: int, *, multi_grid: bool = False, shape: Shape | None = None
) -> Features:
    """Xception-71: two more blocks in the entry flow; 2048 output channels, 256 low-level channels."""
    refuse_shape(shape, "xception71")
    return _xception(g, image, ENTRY_71, output_stride, multi_grid)


def _xception(g: Builder, image: str, entry: tuple[Block, ...], output_stride: int, multi_grid: bool) -> Features:
    """A stride's last map is what the block that leaves it strides over, so that of stride 4 lies inside a block."""
    blocks = (*entry, *MIDDLE, EXIT)
    strides = (2, *(block.stride for block in blocks), 1)
    *plan, (_, last_rate) = rates_for_output_stride(strides, output_stride)
    maps, total = {}, 2
    with g.scope("backbone"):
        x = g.add("entry.conv1", Conv(out_channels=32, stride=2), image)
        x = g.add("entry.conv2", Conv(out_channels=64), x)
        for block, (stride, rate) in zip(blocks, plan[1:], strict=True):
            before_stride, x = _block(g, block, x, stride, rate)
            if stride == 2:
                maps[total] = before_stride
            total *= stride
        for index, (channels, unit) in enumerate(zip(LAST, MULTI_GRID if multi_grid else (1, 1, 1), strict=True), 1):
            rate = last_rate * unit
            x = g.add(f"exit.block2.conv{index}", SeparableConv(out_channels=channels, rate=(rate, rate)), x)
    maps[total] = x
    return Features.of(maps)


def _block(g: Builder, block: Block, x: str, stride: int, rate: int) -> tuple[str, str]:
    """Add a block; returns (the map before the last convolution, the output). New shapes need a 1×1 shortcut."""
    shortcut = x
    with g.scope(block.name):
        y = x
        for index, channels in enumerate(block.channels, 1):
            before = y
            op = SeparableConv(
                out_channels=channels,
                stride=stride if index == 3 else 1,
                rate=(rate, rate),
                pre_activation="relu",
                activation="none",
            )
            y = g.add(f"conv{index}", op, y)
        if block.stride > 1 or g.channels(x) != block.channels[-1]:
            shortcut = g.add(
                "shortcut", Conv(out_channels=block.channels[-1], kernel=1, stride=stride, activation="none"), x
            )
        return before, g.add("add", Add(), y, shortcut)
