"""Residual blocks, each one operator, with torchvision's parameter names inside."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from nasseg.ops.base import OutChannelsOp
from nasseg.ops.conv import Conv, Rate, Stride, conv_layer
from nasseg.ops.layers import BatchNorm


class InvertedResidual(OutChannelsOp):
    """1×1 expansion, depthwise 3×3, linear 1×1 projection, and the input added if shapes allow.

    (N, C, H, W) → (N, out_channels, ceil(H / stride), ceil(W / stride)). MobileNetV2 (arXiv 1801.04381, §3.3).
    """

    op: Literal["inverted_residual"] = "inverted_residual"
    expansion: Annotated[int, Field(ge=1)] = 6
    stride: Stride = 1
    rate: Rate = (1, 1)

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the block, its layers under `conv` as in torchvision."""
        return _InvertedResidual(self, in_channels[0])


class _InvertedResidual(nn.Module):
    def __init__(self, op: InvertedResidual, in_channels: int) -> None:
        super().__init__()
        hidden = in_channels * op.expansion
        expand = Conv(out_channels=hidden, kernel=1, activation="relu6")
        depthwise = Conv(out_channels=hidden, stride=op.stride, rate=op.rate, groups=hidden, activation="relu6")
        project = Conv(out_channels=op.out_channels, kernel=1, activation="none")
        layers = [expand.build([in_channels])] if op.expansion > 1 else []
        layers += [depthwise.build([hidden]), *project.build([hidden]).children()]
        self.conv = nn.Sequential(*layers)
        self.residual = op.stride == 1 and in_channels == op.out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


class BasicBlock(OutChannelsOp):
    """Two 3×3 convolutions, the input added before the last ReLU; a 1×1 convolution adapts the input if needed.

    (N, C, H, W) → (N, out_channels, ceil(H / stride), ceil(W / stride)). ResNet-18 and -34 (arXiv 1512.03385, §3.3).
    """

    op: Literal["basic_block"] = "basic_block"
    stride: Stride = 1
    rate: Rate = (1, 1)

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the block with torchvision's names: conv1, bn1, …, downsample."""
        return _BasicBlock(self, in_channels[0])


class Bottleneck(OutChannelsOp):
    """1×1, 3×3 and 1×1 convolution, the inner ones a quarter as wide; the input added before the last ReLU.

    (N, C, H, W) → (N, out_channels, ceil(H / stride), ceil(W / stride)). ResNet-50 and deeper (arXiv 1512.03385, §3.3);
    the 3×3 convolution has the stride and the rate, as in torchvision.
    """

    op: Literal["bottleneck"] = "bottleneck"
    stride: Stride = 1
    rate: Rate = (1, 1)

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
        self.conv1 = conv_layer(in_channels, width, 3, stride=op.stride, rate=op.rate, bias=False)
        self.bn1 = BatchNorm(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv_layer(width, width, 3, rate=op.rate, bias=False)
        self.bn2 = BatchNorm(width)
        self.downsample = _shortcut(in_channels, width, op.stride)

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
        self.conv2 = conv_layer(width, width, 3, stride=op.stride, rate=op.rate, bias=False)
        self.bn2 = BatchNorm(width)
        self.conv3 = conv_layer(width, op.out_channels, 1, bias=False)
        self.bn3 = BatchNorm(op.out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, op.out_channels, op.stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return self.relu(y)  # type: ignore[no-any-return]


def _shortcut(in_channels: int, channels: int, stride: int) -> nn.Module:
    """Build the identity, or a 1×1 convolution with norm if the block changes the shape."""
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    return nn.Sequential(conv_layer(in_channels, channels, 1, stride=stride, bias=False), BatchNorm(channels))
