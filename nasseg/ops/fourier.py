"""Global filters, which act on the frequencies of a map."""

from collections.abc import Sequence
from math import pi
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, BeforeValidator, Field
from torch import Tensor, nn

from nasseg.ops.base import OutChannelsOp, Pair, as_pair
from nasseg.ops.conv import conv1x1
from nasseg.ops.layers import without_autocast


def _odd(grid: Pair) -> Pair:
    if grid[0] % 2 == 0 or grid[1] % 2 == 0:
        raise ValueError(f"grid is {grid[0]}×{grid[1]}, but must be odd, so that frequency 0 is on it")
    return grid


Frequencies = Annotated[
    tuple[Annotated[int, Field(ge=1, le=255)], Annotated[int, Field(ge=1, le=255)]],
    BeforeValidator(as_pair),
    AfterValidator(_odd),
]


class GlobalFilter(OutChannelsOp):
    """1×1 convolution, then each frequency of each channel multiplied by a learnt complex number, and the input added.

    (N, C, H, W) → (N, out_channels, H, W): a circular convolution as large as the map. GFNet (arXiv 2107.00645, §3.2).
    Numbers are learnt for `grid` (h, w) frequencies from -1/2 to 1/2 cycles per pixel, and interpolated to those of the
    map. They start near zero, the operator thus as the 1×1 convolution alone.
    """

    op: Literal["global_filter"] = "global_filter"
    grid: Frequencies = (15, 15)

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the projection and the filter."""
        return _GlobalFilter(self, in_channels[0])


class _GlobalFilter(nn.Module):
    def __init__(self, op: GlobalFilter, in_channels: int) -> None:
        super().__init__()
        self.project = conv1x1(op.out_channels).build([in_channels])
        rows, columns = op.grid
        # A step changes a filter by this factor's square: as much as it would change a convolution of the grid's size.
        self.scale = (rows * columns) ** 0.5
        # Opposite frequencies of a real map are conjugates of each other, so that half of them are enough.
        start = torch.randn(2, op.out_channels, rows, columns // 2 + 1)
        self.filter = nn.Parameter(0.02 / self.scale * start)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        return x + fourier_filter(x, self.scale * self.filter).to(x.dtype)


def fourier_filter(x: Tensor, filter: Tensor) -> Tensor:
    """Multiply the spectra of maps (N, C, H, W) by a filter, as `irfft2(rfft2(x) * filter)` does: (N, C, H, W).

    The filter (2, C, h, w), real and imaginary parts, is for frequencies from -1/2 to 1/2 cycles per pixel along h and
    from 0 to 1/2 along w, and is interpolated linearly between them. The transforms are matrix products, which every
    runtime has. They are computed in float32 (float64 for float64), also in mixed precision.
    """
    height, width = x.shape[-2:]
    with without_autocast(x.device):
        x, filter = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (x, filter))
        columns = torch.arange(width // 2 + 1, device=x.device)
        cosine, sine = _waves(columns, width, x.dtype)
        across = torch.stack([cosine, -sine])
        cosine, sine = _waves(torch.arange(height, device=x.device) - height // 2, height, x.dtype)
        down = torch.stack([torch.stack([cosine, sine]), torch.stack([-sine, cosine])])
        # The columns of the spectrum that are left out are conjugates of those between frequency 0 and 1/2.
        weight = (1 + (_modulo(2 * columns, width) != 0).to(x.dtype)) / (height * width)
        filter_real, filter_imaginary = _interpolate(filter, height, width) * weight[:, None]

        spectrum = torch.einsum("abih,nbhjc->naijc", down, torch.einsum("bjw,nchw->nbhjc", across, x))
        real, imaginary = spectrum.unbind(1)
        real, imaginary = (
            real * filter_real - imaginary * filter_imaginary,
            real * filter_imaginary + imaginary * filter_real,
        )
        spectrum = torch.stack([real, imaginary], dim=1)
        return torch.einsum("bjw,nbhjc->nchw", across, torch.einsum("abih,naijc->nbhjc", down, spectrum))


def _waves(frequencies: Tensor, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines, (frequencies, size), of waves with so many periods in `size` pixels."""
    # Whole periods are left out in integers: sines of large angles are inexact.
    phases = _modulo(torch.outer(frequencies, torch.arange(size, device=frequencies.device)), size)
    angles = phases.to(dtype) * (2 * pi / size)
    return angles.cos(), angles.sin()


def _modulo(values: Tensor, size: int) -> Tensor:
    """`values % size`, with the size as a tensor: ONNX's exporter knows no remainder of a symbol."""
    return values % torch.full((), size, device=values.device)


def _interpolate(filter: Tensor, height: int, width: int) -> Tensor:
    """(2, C, h, w) → (2, height, width // 2 + 1, C): the filter at the frequencies of a map of height × width."""
    # The corners of the grid are frequencies ±1/2, which a map of odd size has only at twice its resolution.
    fine = F.interpolate(filter, (2 * height + 1, width + 1), mode="bilinear", align_corners=True)
    return fine[:, :, height % 2 : 2 * height : 2, ::2].permute(0, 2, 3, 1)
