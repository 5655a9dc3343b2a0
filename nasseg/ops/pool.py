"""Pools: average and maximum windows, spatial pyramid pooling by grid, image pooling."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from nasseg.ops.base import Op, OutChannelsOp, Pair, Step, as_pair
from nasseg.ops.conv import Kernel, conv1x1
from nasseg.ops.layers import BatchNorm, bilinear, known

Cells = Annotated[int, Field(ge=1, le=64)]
Grid = Annotated[tuple[Cells, Cells], BeforeValidator(as_pair)]


class _Pool(Op):
    kernel: Kernel = 3
    stride: Step = 1

    @model_validator(mode="after")
    def _even_windows_tile(self) -> "_Pool":
        if self.kernel % 2 == 0 and self.kernel != self.stride:
            raise ValueError(f"kernel is {self.kernel}, but must be odd, or equal to the stride {self.stride}")
        return self

    def out_channels_of(self, in_channels: Sequence[int]) -> int:
        """Return the input's channels."""
        return in_channels[0]

    @property
    def _window(self) -> tuple[int, int, int, bool]:
        """Kernel, stride, padding, whether sizes round up: an even window tiles the map, an odd one is centred."""
        even = self.kernel % 2 == 0
        return self.kernel, self.stride, 0 if even else self.kernel // 2, even


class AveragePool(_Pool):
    """k×k average over the pixels inside the map: (N, C, H, W) → (N, C, ceil(H / stride), ceil(W / stride))."""

    op: Literal["average_pool"] = "average_pool"

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build PyTorch's layer, which leaves the padding out of the mean."""
        kernel, stride, padding, ceil = self._window
        return nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil, count_include_pad=False)


class MaxPool(_Pool):
    """k×k maximum: (N, C, H, W) → (N, C, ceil(H / stride), ceil(W / stride))."""

    op: Literal["max_pool"] = "max_pool"

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build PyTorch's layer."""
        kernel, stride, padding, ceil = self._window
        return nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)


class PyramidPool(OutChannelsOp):
    """Average pooling to a grid, 1×1 convolution, norm, ReLU, then bilinear resizing back to the input's size.

    (N, C, H, W) → (N, out_channels, H, W). Grid (h, w) counts cells per axis: spatial pyramid pooling of PSPNet (arXiv
    1612.01105, §3.2) and of DPC (arXiv 1809.04184, §3.1). A 1×1 grid is image pooling.
    """

    op: Literal["pyramid_pool"] = "pyramid_pool"
    grid: Grid = (1, 1)

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build pooling, projection and resizing."""
        return _PyramidPool(self, in_channels[0])


class _PyramidPool(nn.Module):
    def __init__(self, op: PyramidPool, in_channels: int) -> None:
        super().__init__()
        self.grid = op.grid
        self.project = conv1x1(op.out_channels).build([in_channels])

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        pooled = x.mean((2, 3), keepdim=True) if self.grid == (1, 1) else _cell_means(x, self.grid)
        projected = self.project(pooled)
        if self.grid == (1, 1):
            # A view with strides of 0 makes a concatenation lose channels last, which slows down all that follows.
            last = x.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if last else torch.contiguous_format
            spread: Tensor = projected.expand(-1, -1, height, width)
            return spread.contiguous(memory_format=layout)
        return bilinear(projected, (height, width))


def _cell_means(x: Tensor, grid: Pair) -> Tensor:
    """Average (N, C, H, W) over the cells of a grid (h, w), as PyTorch cuts them: (N, C, h, w)."""
    height, width = x.shape[-2:]
    if known(height, width):
        return F.adaptive_avg_pool2d(x, grid)
    rows, columns = (_shares(cells, length, x) for cells, length in zip(grid, (height, width), strict=True))
    return rows @ x @ columns.T


def _shares(cells: int, length: int, like: Tensor) -> Tensor:
    """The share of each position of an axis in the mean of each cell: (cells, length), zero outside the cell."""
    cell = torch.arange(cells, device=like.device)[:, None]
    start, end = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
    position = torch.arange(length, device=like.device)
    return ((start <= position) & (position < end)).to(like.dtype) / (end - start)


def image_pool(out_channels: int) -> PyramidPool:
    """Make DeepLabV3's image pooling (arXiv 1706.05587, §3.3): the mean of the whole map, projected and spread back."""
    return PyramidPool(out_channels=out_channels, grid=(1, 1))


class GlobalPool(Op):
    """The mean over the whole map: (N, C, H, W) → (N, C, 1, 1)."""

    op: Literal["global_pool"] = "global_pool"

    def out_channels_of(self, in_channels: Sequence[int]) -> int:
        """Return the input's channels."""
        return in_channels[0]

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build PyTorch's layer."""
        return nn.AdaptiveAvgPool2d(1)


class StripPool(OutChannelsOp):
    """1×1 convolution, then each pixel multiplied by what the means of its row and of its column say.

    (N, C, H, W) → (N, out_channels, H, W). Strip pooling module (Hou et al., arXiv 2003.13328, §3.1): a convolution of
    three taps along the row means and one along the column means, their sum at each pixel, 1×1 convolution, sigmoid.
    The module itself keeps its channels; the convolution before it is the one that the paper's networks have there.
    """

    op: Literal["strip_pool"] = "strip_pool"

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build projection, strips and gate."""
        return _StripPool(self, in_channels[0])


class _StripPool(nn.Module):
    def __init__(self, op: StripPool, in_channels: int) -> None:
        super().__init__()
        channels = op.out_channels
        self.project = conv1x1(channels).build([in_channels])
        self.rows = nn.Sequential(
            nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), bias=False), BatchNorm(channels)
        )
        self.columns = nn.Sequential(
            nn.Conv2d(channels, channels, (1, 3), padding=(0, 1), bias=False), BatchNorm(channels)
        )
        self.gate = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        rows, columns = self.rows(x.mean(3, keepdim=True)), self.columns(x.mean(2, keepdim=True))
        return x * self.gate(rows + columns)  # type: ignore[no-any-return]
