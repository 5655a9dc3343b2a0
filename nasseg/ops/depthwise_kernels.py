"""Depthwise convolutions with stride 1 as Triton kernels for GPUs, in maps whose channels lie last.

A depthwise convolution is bound by memory: each kernel reads maps as they lie, so that neighbouring threads take
neighbouring channels, and sums up in single precision, or in double if the maps are.
"""
# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-any-return"

import torch
import triton
import triton.language as tl
from torch import Tensor

from nasseg.ops.base import Pair

MOST_CHANNELS = 128
"""Of a block: as many as are read at once by the threads of a warp or two."""
COLUMNS, PIXELS = 16, 32
MOST_PARTS = 128
"""Into which a weight's gradient is split; their sums are added up after, in the same order each time."""


def centred(x: Tensor, weight: Tensor, rate: Pair) -> Tensor:
    """Convolve (N, C, H, W) with (C, 1, k, k), padded so that the size stays."""
    x = x.contiguous(memory_format=torch.channels_last)
    images, channels, height, width = x.shape
    kernel = weight.shape[-1]
    output = torch.empty_like(x)
    block = _channels_at_once(channels)
    grid = (images * height, triton.cdiv(width, COLUMNS), triton.cdiv(channels, block))
    taps = weight.reshape(channels, kernel**2).t().contiguous()
    centred_kernel[grid](
        x,
        taps,
        output,
        height,
        width,
        channels,
        *rate,
        kernel=kernel,
        stretch=COLUMNS,
        block=block,
        sum_type=_sum_type(x),
    )
    return output


def weight_gradient(x: Tensor, gradient: Tensor, kernel: int, rate: Pair) -> Tensor:
    """The sums over images and positions of `gradient` times shifted `x`, (C, 1, k, k)."""
    x, gradient = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, gradient))
    images, channels, height, width = x.shape
    pixels = images * height * width
    block = _channels_at_once(channels)
    of_a_part = PIXELS * triton.cdiv(pixels, PIXELS * min(MOST_PARTS, triton.cdiv(pixels, PIXELS)))
    parts = triton.cdiv(pixels, of_a_part)
    dtype = torch.promote_types(x.dtype, torch.float32)
    sums = torch.empty(parts, kernel**2, channels, dtype=dtype, device=x.device)
    grid = (parts, kernel**2, triton.cdiv(channels, block))
    weight_gradient_kernel[grid](
        x,
        gradient,
        sums,
        pixels,
        of_a_part,
        height,
        width,
        channels,
        *rate,
        kernel=kernel,
        pixels_at_once=PIXELS,
        block=block,
        sum_type=_sum_type(x),
    )
    return sums.sum(0).t().reshape(channels, 1, kernel, kernel).to(x.dtype)


def _channels_at_once(channels: int) -> int:
    return min(MOST_CHANNELS, triton.next_power_of_2(channels))


def _sum_type(x: Tensor) -> tl.dtype:
    return tl.float64 if x.dtype == torch.float64 else tl.float32


@triton.jit
def centred_kernel(
    x,
    taps,
    output,
    height,
    width,
    channels,
    down,
    right,
    kernel: tl.constexpr,
    stretch: tl.constexpr,
    block: tl.constexpr,
    sum_type: tl.constexpr,
):
    """A stretch of one row: the image's rows follow each other, and so do the images."""
    line = tl.program_id(0)
    row = tl.full((stretch,), line % height, tl.int32)
    columns = tl.program_id(1) * stretch + tl.arange(0, stretch)
    of_channels = tl.program_id(2) * block + tl.arange(0, block)
    is_channel = of_channels < channels
    image = (line // height).to(tl.int64) * height * width * channels
    total = tl.zeros((stretch, block), dtype=sum_type)
    for i in range(kernel):
        from_row = row + (i - kernel // 2) * down
        for j in tl.static_range(kernel):
            from_columns = columns + (j - kernel // 2) * right
            inside = (from_row >= 0) & (from_row < height) & (from_columns >= 0) & (from_columns < width)
            read = (from_row * width + from_columns)[:, None] * channels + of_channels[None, :]
            values = tl.load(x + image + read, mask=inside[:, None] & is_channel[None, :], other=0.0)
            tap = tl.load(taps + (i * kernel + j) * channels + of_channels, mask=is_channel, other=0.0)
            total += values.to(sum_type) * tap.to(sum_type)[None, :]
    written = (row * width + columns)[:, None] * channels + of_channels[None, :]
    is_pixel = columns < width
    tl.store(output + image + written, total.to(output.dtype.element_ty), mask=is_pixel[:, None] & is_channel[None, :])


@triton.jit
def weight_gradient_kernel(
    x,
    gradient,
    sums,
    pixels,
    of_a_part,
    height,
    width,
    channels,
    down,
    right,
    kernel: tl.constexpr,
    pixels_at_once: tl.constexpr,
    block: tl.constexpr,
    sum_type: tl.constexpr,
):
    """One tap, summed over a part of all pixels."""
    part, tap = tl.program_id(0), tl.program_id(1)
    of_channels = tl.program_id(2) * block + tl.arange(0, block)
    is_channel = of_channels < channels
    by_rows = (tap // kernel - kernel // 2) * down
    by_columns = (tap % kernel - kernel // 2) * right
    total = tl.zeros((pixels_at_once, block), dtype=sum_type)
    first = part * of_a_part
    for start in range(first, tl.minimum(first + of_a_part, pixels), pixels_at_once):
        at = start + tl.arange(0, pixels_at_once)
        from_row, from_column = at // width % height + by_rows, at % width + by_columns
        inside = (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width) & (at < pixels)
        mask = inside[:, None] & is_channel[None, :]
        written = at.to(tl.int64)[:, None] * channels + of_channels[None, :]
        gradients = tl.load(gradient + written, mask=mask, other=0.0)
        values = tl.load(x + written + (by_rows * width + by_columns) * channels, mask=mask, other=0.0)
        total += gradients.to(sum_type) * values.to(sum_type)
    tl.store(sums + (part * kernel * kernel + tap) * channels + of_channels, tl.sum(total, axis=0), mask=is_channel)
