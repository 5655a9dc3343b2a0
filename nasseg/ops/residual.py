"""Residual blocks, each one operator, with torchvision's parameter names inside."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from nasseg.ops.base import OutChannelsOp, Step
from nasseg.ops.conv import Conv, OddKernel, Padding, Rate, conv_layer
from nasseg.ops.layers import BatchNorm, NormName


class InvertedResidual(OutChannelsOp):
    """1×1 expansion, depthwise k×k, linear 1×1 projection, and the input added where shapes allow.

    (N, C, H, W) → (N, out_channels, ceil(H / stride), ceil(W / stride)). MobileNetV2 (arXiv 1801.04381, §3.3);
    EfficientNet-Lite's blocks are the same. `residual=False` never adds the input.
    """

    op: Literal["inverted_residual"] = "inverted_residual"
    later: ClassVar[frozenset[str]] = frozenset({"kernel", "norm", "padding", "residual"})
    expansion: Annotated[int, Field(ge=1, le=64)] = 6
    stride: Step = 1
    rate: Rate = (1, 1)
    kernel: OddKernel = 3
    norm: NormName = "batch"
    padding: Padding = "centred"
    residual: bool = True

    def adds_input(self, in_channels: int) -> bool:
        """Whether a block on so many channels adds its input to its output."""
        return self.residual and self.stride == 1 and in_channels == self.out_channels

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the block, its layers under `conv` as in torchvision."""
        return _InvertedResidual(self, in_channels[0])


class _InvertedResidual(nn.Module):
    def __init__(self, op: InvertedResidual, in_channels: int) -> None:
        super().__init__()
        hidden = in_channels * op.expansion
        expand = Conv(out_channels=hidden, kernel=1, norm=op.norm, activation="relu6")
        depthwise = Conv(
            out_channels=hidden,
            kernel=op.kernel,
            stride=op.stride,
            rate=op.rate,
            groups=hidden,
            norm=op.norm,
            activation="relu6",
            padding=op.padding,
        )
        project = Conv(out_channels=op.out_channels, kernel=1, norm=op.norm, activation="none")
        layers = [expand.build([in_channels])] if op.expansion > 1 else []
        layers += [depthwise.build([hidden]), *project.build([hidden]).children()]
        self.conv = nn.Sequential(*layers)
        self.residual = op.adds_input(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


class _ResNetBlock(OutChannelsOp):
    """Shared by ResNet's two blocks: their fields and their shortcut."""

    later: ClassVar[frozenset[str]] = frozenset({"kernel", "projection"})
    stride: Step = 1
    rate: Rate = (1, 1)
    kernel: OddKernel = 3
    projection: bool = False

    def adds_input(self, in_channels: int) -> bool:
        """Whether a block on so many channels adds its input as it is, not projected."""
        return not self.projection and self.stride == 1 and in_channels == self.out_channels


class BasicBlock(_ResNetBlock):
    """Two k×k convolutions, the input added before the last ReLU; a 1×1 convolution fits the input where it must.

    (N, C, H, W) → (N, out_channels, ceil(H / stride), ceil(W / stride)). ResNet-18 and -34 (arXiv 1512.03385, §3.3).
    With `projection`, the 1×1 convolution is there even where shapes agree.
    """

    op: Literal["basic_block"] = "basic_block"

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the block with torchvision's names: conv1, bn1, …, downsample."""
        return _BasicBlock(self, in_channels[0])


class Bottleneck(_ResNetBlock):
    """1×1, k×k and 1×1 convolution, the inner ones a quarter as wide; the input added before the last ReLU.

    (N, C, H, W) → (N, out_channels, ceil(H / stride), ceil(W / stride)). ResNet-50 and deeper (arXiv 1512.03385, §3.3);
    the k×k convolution has the stride and the rate, as in torchvision. `projection` is as for `BasicBlock`.
    """

    op: Literal["bottleneck"] = "bottleneck"

    @model_validator(mode="after")
    def _quarter_is_whole(self) -> "Bottleneck":
        if self.out_channels % 4:
            raise ValueError(f"out_channels is {self.out_channels}, but must be a multiple of 4")
        return self

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the block with torchvision's names: conv1, bn1, …, downsample."""
        return _Bottleneck(self, in_channels[0])


class _BasicBlock(nn.Module):
    def __init__(self, op: BasicBlock, in_channels: int) -> None:
        super().__init__()
        width = op.out_channels
        self.conv1 = conv_layer(in_channels, width, op.kernel, stride=op.stride, rate=op.rate, bias=False)
        self.bn1 = BatchNorm(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv_layer(width, width, op.kernel, rate=op.rate, bias=False)
        self.bn2 = BatchNorm(width)
        self.downsample = _shortcut(op, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)
        return self.relu(y)  # type: ignore[no-any-return]


class _Bottleneck(nn.Module):
    def __init__(self, op: Bottleneck, in_channels: int) -> None:
        super().__init__()
        width = op.out_channels // 4
        self.conv1 = conv_layer(in_channels, width, 1, bias=False)
        self.bn1 = BatchNorm(width)
        self.conv2 = conv_layer(width, width, op.kernel, stride=op.stride, rate=op.rate, bias=False)
        self.bn2 = BatchNorm(width)
        self.conv3 = conv_layer(width, op.out_channels, 1, bias=False)
        self.bn3 = BatchNorm(op.out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(op, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return self.relu(y)  # type: ignore[no-any-return]


def _shortcut(op: _ResNetBlock, in_channels: int) -> nn.Module:
    """The identity, or a 1×1 convolution with norm where the block changes the shape."""
    if op.adds_input(in_channels):
        return nn.Identity()
    channels = op.out_channels
    return nn.Sequential(conv_layer(in_channels, channels, 1, stride=op.stride, bias=False), BatchNorm(channels))
