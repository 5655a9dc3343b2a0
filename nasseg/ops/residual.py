"""Residual blocks, each one operator, with torchvision's parameter names inside."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from nasseg.ops.base import Op
from nasseg.ops.conv import Channels, Conv, Rate, Stride


class InvertedResidual(Op):
    """1×1 expansion, depthwise 3×3, linear 1×1 projection, and the input added where shapes allow.

    (N, C, H, W) → (N, out_channels, ceil(H / stride), ceil(W / stride)). MobileNetV2 (arXiv 1801.04381, §3.3).
    """

    op: Literal["inverted_residual"] = "inverted_residual"
    out_channels: Channels
    expansion: Annotated[int, Field(ge=1)] = 6
    stride: Stride = 1
    rate: Rate = (1, 1)

    def out_channels_of(self, in_channels: Sequence[int]) -> int:
        """`out_channels`."""
        return self.out_channels

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """The block, its layers under `conv` as in torchvision."""
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
