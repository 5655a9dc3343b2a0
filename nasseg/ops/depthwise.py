"""Depthwise convolutions that are fast, most of all in training."""

from collections.abc import Iterator
from itertools import product
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nasseg.ops.base import Pair
from nasseg.ops.fastest import Fastest


def convolve(layer: nn.Conv2d, input: Tensor, padding: Pair) -> Tensor:
    """Convolve with `layer`'s weight and this padding, centred if the stride is 1.

    A depthwise convolution is computed otherwise than by PyTorch, equal up to the order of summation: on a CPU where it
    trains, and in inference where its padding is wide. oneDNN has fast kernels for narrow paddings only, for a weight's
    gradient only if the kernel is three wide and not atrous, and for an input's only if it is neither atrous nor, in
    bfloat16, strided. Others take 5 to 80 times as long (`benchmarks/depthwise.py`); here they are made of what is
    fast. On a GPU, one with stride 1 trains with the faster of PyTorch's kernels and ours, which each shape finds out
    on the device at its first step. What is exported or compiled has PyTorch's convolution.
    """
    depthwise = layer.groups == layer.in_channels == layer.out_channels and layer.kernel_size[0] > 1
    device = input.device.type
    if not depthwise or device not in ("cpu", "cuda") or torch.compiler.is_compiling():
        return _stock(layer, input, padding)
    weight = layer.weight
    if not torch.is_grad_enabled():
        if device == "cuda" or max(layer.stride) > 1 or _has_fast_kernel(padding, input.shape[-1]):
            return _stock(layer, input, padding)
        return _with_bias(_centred(input, weight, layer.dilation), layer.bias)  # type: ignore[arg-type] # a pair
    if not layer.training or (device == "cuda" and max(layer.stride) > 1):
        return _stock(layer, input, padding)
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        input, weight = input.to(dtype), weight.to(dtype)
    output: Tensor = _DepthwiseConvolution.apply(  # type: ignore[no-untyped-call]
        input, weight, layer.stride, padding, layer.dilation
    )
    return _with_bias(output, layer.bias)


def _stock(layer: nn.Conv2d, input: Tensor, padding: Pair) -> Tensor:
    return F.conv2d(input, layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)


def _with_bias(output: Tensor, bias: Tensor | None) -> Tensor:
    return output if bias is None else output + bias[:, None, None].to(output.dtype)


WIDEST_FAST_PADDING = {"AVX512": 6, "AVX2": 4}
"""At the left and the right, in pixels; with more, oneDNN's forward pass takes 5 to 40 times as long."""
WIDEST_FAST_PADDING_ELSEWHERE = 3


def _has_fast_kernel(padding: Pair, width: int) -> bool:
    """Whether oneDNN has a fast kernel for a centred convolution of maps so wide: it takes some columns at once."""
    columns = WIDEST_FAST_PADDING.get(torch.backends.cpu.get_cpu_capability(), WIDEST_FAST_PADDING_ELSEWHERE)
    return padding[1] <= min(columns, width)


class _DepthwiseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(input: Tensor, weight: Tensor, stride: Pair, padding: Pair, rate: Pair) -> Tensor:
        if max(stride) > 1:
            return F.conv2d(input, weight, None, stride, padding, rate, input.shape[1])
        # Merged phases are a view, which an activation behind a custom function could not change in place.
        return _centred(input, weight, rate).data

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Pair, Pair, Pair], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.geometry = inputs[2:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        stride, _, rate = ctx.geometry
        of_input, of_weight = ctx.needs_input_grad[:2]
        if max(stride) > 1:
            made = _strided_gradients(gradient, input, weight, ctx.geometry, (of_input, of_weight))
        else:
            made = (
                _centred(gradient, weight.flip(2, 3), rate) if of_input else None,
                _weight_gradient(input, gradient, weight.shape[-1], rate) if of_weight else None,
            )
        return *made, None, None, None


def _centred(x: Tensor, weight: Tensor, rate: Pair) -> Tensor:
    """A convolution with stride 1, of every phase alone if the padding is wide."""
    if x.device.type == "cuda":
        return _CENTRED_ON_GPU(x, weight, rate)
    half = weight.shape[-1] // 2
    if _has_fast_kernel((rate[0] * half, rate[1] * half), x.shape[-1]):
        return _stock_centred(x, weight, rate)
    return _merged(F.conv2d(_phases(x, rate), weight, None, 1, half, 1, x.shape[1]), x.shape, rate)


def _stock_centred(x: Tensor, weight: Tensor, rate: Pair) -> Tensor:
    half = weight.shape[-1] // 2
    return F.conv2d(x, weight, None, 1, (rate[0] * half, rate[1] * half), rate, x.shape[1])


def _strided_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, geometry: tuple[Pair, Pair, Pair], wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    made = _stock_gradients(gradient.to(dtype), x.to(dtype), weight.to(dtype), geometry, wanted)
    of_input, of_weight = (None if tensor is None else tensor.to(x.dtype) for tensor in made)
    return of_input, of_weight


def _stock_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, geometry: tuple[Pair, Pair, Pair], wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """PyTorch's gradients of the input and the weight, those that are wanted."""
    made = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, *geometry, False, (0, 0), x.shape[1], (*wanted, False)
    )
    return made[0], made[1]


def _weight_gradient(x: Tensor, gradient: Tensor, kernel: int, rate: Pair) -> Tensor:
    """The sums over images and positions of `gradient` times shifted `x`, (C, 1, kernel, kernel)."""
    if x.device.type == "cuda":
        return _WEIGHT_GRADIENT_ON_GPU(x, gradient, kernel, rate)
    if max(rate) == 1:
        return _by_columns(x, gradient, kernel)
    if all(size >= kernel * step for size, step in zip(x.shape[2:], rate, strict=True)):
        return _by_columns(_phases(x, rate), _phases(gradient, rate), kernel)
    return _by_taps(x, gradient, kernel, rate)


def _stock_weight_gradient(x: Tensor, gradient: Tensor, kernel: int, rate: Pair) -> Tensor:
    half, weight = kernel // 2, gradient.new_empty(x.shape[1], 1, kernel, kernel)
    geometry = (1, 1), (rate[0] * half, rate[1] * half), rate
    _, made = _stock_gradients(gradient, x, weight, geometry, (False, True))
    return cast(Tensor, made)


def _by_columns(x: Tensor, gradient: Tensor, kernel: int) -> Tensor:
    """Without a rate: kernels three wide, side by side; the last one overlaps the one before if it must."""
    half = kernel // 2
    weight = gradient.new_empty(x.shape[1], 1, kernel, 3)

    def columns(window: Tensor, padding: Pair) -> Tensor:
        _, made = _stock_gradients(gradient, window, weight, ((1, 1), padding, (1, 1)), (False, True))
        return cast(Tensor, made)

    if kernel == 3:
        return columns(x, (1, 1))
    padded, firsts = F.pad(x, (half, half)), [min(column, kernel - 3) for column in range(0, kernel, 3)]
    parts = [columns(padded[..., first : first + x.shape[-1] + 2], (half, 0)) for first in firsts]
    parts[-1] = parts[-1][..., 3 * len(parts) - kernel :]
    return torch.cat(parts, dim=-1)


def _phases(x: Tensor, rate: Pair) -> Tensor:
    """Every rate-th row and column, as images of their own: an atrous convolution is a plain one of each of them.

    (N, C, H, W) → (N·rates, C, ceil(H / rate), ceil(W / rate)), zeros where there is nothing.
    """
    images, channels, height, width = x.shape
    down, right = rate
    rows, columns = -(-height // down), -(-width // right)
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, columns * right - width, 0, rows * down - height))
    split = padded.reshape(images, rows, down, columns, right, channels).permute(0, 2, 4, 1, 3, 5)
    return split.reshape(images * down * right, rows, columns, channels).permute(0, 3, 1, 2)


def _merged(phases: Tensor, shape: torch.Size, rate: Pair) -> Tensor:
    """The images of this shape that `_phases` has split."""
    images, channels, height, width = shape
    rows, columns = phases.shape[2:]
    split = phases.permute(0, 2, 3, 1).reshape(images, *rate, rows, columns, channels).permute(0, 3, 1, 4, 2, 5)
    whole = split.reshape(images, rows * rate[0], columns * rate[1], channels)
    # Of a view with gaps, a batch norm takes four times as long as of its copy.
    return whole[:, :height, :width].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _by_taps(x: Tensor, gradient: Tensor, kernel: int, rate: Pair) -> Tensor:
    """One product a tap, of where it lies within the map: little where taps lie far apart."""
    made = gradient.new_zeros(x.shape[1], 1, kernel, kernel)
    taps = product(*(list(_overlaps(size, kernel, step)) for size, step in zip(x.shape[2:], rate, strict=True)))
    for (row, rows, shifted_rows), (column, columns, shifted_columns) in taps:
        products = gradient[:, :, rows, columns] * x[:, :, shifted_rows, shifted_columns]
        made[:, 0, row, column] = products.sum((0, 2, 3))
    return made


def _overlaps(size: int, kernel: int, rate: int) -> Iterator[tuple[int, slice, slice]]:
    """Each tap of an axis that reaches into the map: its index, the outputs that it adds to, and what it reads."""
    for tap in range(kernel):
        shift = (tap - kernel // 2) * rate
        if abs(shift) < size:
            yield tap, slice(max(0, -shift), size - max(0, shift)), slice(max(0, shift), size - max(0, -shift))


def _our_centred(x: Tensor, weight: Tensor, rate: Pair) -> Tensor:
    from nasseg.ops import depthwise_kernels

    with torch.cuda.device(x.device):
        return depthwise_kernels.centred(x, weight, rate)


def _our_weight_gradient(x: Tensor, gradient: Tensor, kernel: int, rate: Pair) -> Tensor:
    from nasseg.ops import depthwise_kernels

    with torch.cuda.device(x.device):
        return depthwise_kernels.weight_gradient(x, gradient, kernel, rate)


OURS = "a depthwise convolution in Triton"
_CENTRED_ON_GPU = Fastest({"PyTorch's": _stock_centred, OURS: _our_centred})
_WEIGHT_GRADIENT_ON_GPU = Fastest({"PyTorch's": _stock_weight_gradient, OURS: _our_weight_gradient})
