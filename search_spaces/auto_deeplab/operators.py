"""The eight operators of a cell's edges, in a fixed order (Auto-DeepLab, arXiv 1901.02985, §3.1)."""

from __future__ import annotations

from typing import Literal, get_args

from nasseg.ops import AveragePool, Conv, Identity, MaxPool, Op, SeparableConv, Zero

OperatorName = Literal["sep3", "sep5", "atrous3", "atrous5", "average_pool", "max_pool", "skip", "zero"]
OPERATORS: tuple[OperatorName, ...] = get_args(OperatorName)


def operator(name: OperatorName, channels: int, stride: int = 1) -> tuple[Op, ...]:
    """List the consecutive ops of operator `name`: (N, channels, H, W) → (N, channels, ⌈H / s⌉, ⌈W / s⌉).

    As in the reference implementation, `sep` is two separable convolutions, each with one norm; `atrous` is dense, at
    rate 2; and `skip` is a 1×1 convolution if it has a stride.
    """
    match name:
        case "sep3" | "sep5":
            kernel = int(name[-1])
            return _separable(channels, kernel, stride), _separable(channels, kernel, 1)
        case "atrous3" | "atrous5":
            return (_conv(channels, kernel=int(name[-1]), stride=stride, rate=2),)
        case "average_pool":
            return (AveragePool(kernel=3, stride=stride),)
        case "max_pool":
            return (MaxPool(kernel=3, stride=stride),)
        case "skip":
            return (Identity() if stride == 1 else _conv(channels, kernel=1, stride=stride, rate=1),)
        case "zero":
            return (Zero(stride=stride),)


def match_channels(channels: int) -> Op:
    """Make the ReLU, 1×1 convolution and batch norm that match a cell's input to its number of filters."""
    return _conv(channels, kernel=1, stride=1, rate=1)


def _conv(channels: int, *, kernel: int, stride: int, rate: int) -> Op:
    return Conv(
        out_channels=channels, kernel=kernel, stride=stride, rate=(rate, rate), pre_activation="relu", activation="none"
    )


def _separable(channels: int, kernel: int, stride: int) -> Op:
    return SeparableConv(
        out_channels=channels,
        kernel=kernel,
        stride=stride,
        pre_activation="relu",
        activation="none",
        depthwise_norm="none",
        depthwise_activation="none",
    )
