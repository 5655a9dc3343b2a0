"""The short-term dense concatenate module of STDC networks."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from nasseg.ops.base import OutChannelsOp
from nasseg.ops.conv import Conv


class StdcModule(OutChannelsOp):
    """A chain of blocks, each half as wide as the one before, whose outputs are all concatenated.

    (N, C, H, W) → (N, out_channels, ceil(H / stride), ceil(W / stride)). STDC (Fan et al., arXiv 2104.13188, §3.1): a
    1×1 block of half the channels, then 3×3 blocks, the last as wide as the one before it, so that the sum is
    `out_channels`. With stride 2, a depthwise convolution halves the first block's output for the second block, and an
    average pool halves it for the concatenation.
    """

    op: Literal["stdc_module"] = "stdc_module"
    blocks: Annotated[int, Field(ge=2, le=16)] = 4
    stride: Literal[1, 2] = 1

    @model_validator(mode="after")
    def _widths_are_whole(self) -> "StdcModule":
        factor = 2 ** (self.blocks - 1)
        if self.out_channels % factor:
            raise ValueError(f"out_channels is {self.out_channels}, but must be a multiple of {factor}, 2^(blocks - 1)")
        return self

    @property
    def widths(self) -> list[int]:
        """Output channels of each block."""
        halves = [self.out_channels >> shift for shift in range(1, self.blocks)]
        return [*halves, halves[-1]]

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the module."""
        return _StdcModule(self, in_channels[0])


class _StdcModule(nn.Module):
    def __init__(self, op: StdcModule, in_channels: int) -> None:
        super().__init__()
        first, *widths = op.widths
        self.first = Conv(out_channels=first, kernel=1).build([in_channels])
        self.down: nn.Module = nn.Identity()
        self.pool: nn.Module = nn.Identity()
        if op.stride == 2:
            depthwise = Conv(out_channels=first, stride=2, groups=first, activation="none")
            self.down = depthwise.build([first])
            self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            Conv(out_channels=width).build([source]) for source, width in zip([first, *widths], widths, strict=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        y = self.down(first)
        outputs = [self.pool(first)]
        for block in self.blocks:
            y = block(y)
            outputs.append(y)
        return torch.cat(outputs, dim=1)
