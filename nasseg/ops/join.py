"""Operators that join, gate, resize or pass on maps, with no weights of their own (except the norm)."""

from collections.abc import Sequence
from math import ceil
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nasseg.ops.base import Channels, Op, Step
from nasseg.ops.layers import (
    ActivationName,
    FastDropout,
    NormName,
    activation_layers,
    bilinear,
    norm_layers,
    sequential,
)


class _Elementwise(Op):
    """Shared by the operators whose output has the first input's channels."""

    def out_channels_of(self, in_channels: Sequence[int]) -> int:
        """Return the inputs' common number of channels; inputs with one channel are broadcast."""
        widest = max(in_channels)
        if any(channels not in (1, widest) for channels in in_channels):
            raise ValueError(f"inputs have {', '.join(map(str, in_channels))} channels, but must have equal numbers")
        return widest


class Input(Op):
    """An input of the network: (N, channels, H, W)."""

    op: Literal["input"] = "input"
    arity: ClassVar[tuple[int, int | None]] = (0, 0)
    channels: Channels = 3

    def out_channels_of(self, in_channels: Sequence[int]) -> int:
        """Return `channels`."""
        return self.channels

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build an identity."""
        return nn.Identity()


class Identity(_Elementwise):
    """The input, unchanged (a skip connection)."""

    op: Literal["identity"] = "identity"

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build PyTorch's layer."""
        return nn.Identity()


class Zero(_Elementwise):
    """Zeros, (N, C, H, W) → (N, C, ceil(H / stride), ceil(W / stride)): no connection (the zero of DARTS)."""

    op: Literal["zero"] = "zero"
    stride: Step = 1

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build a module that ignores its input's values."""
        return _Zero(self.stride)


class _Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[..., :: self.stride, :: self.stride])


class Activation(_Elementwise):
    """Normalisation (if any), then a pointwise function, as a node of its own: (N, C, H, W) → the same."""

    op: Literal["activation"] = "activation"
    activation: ActivationName = "relu"
    norm: NormName = "none"

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the layers in order; a single one is returned bare."""
        norm = norm_layers(self.norm, in_channels[0])
        return sequential([*norm, *activation_layers(self.activation, inplace=bool(norm))])


class Add(_Elementwise):
    """Sum of maps, then an activation (none by default); (N, C, 1, 1) inputs are broadcast."""

    op: Literal["add"] = "add"
    arity: ClassVar[tuple[int, int | None]] = (2, None)
    order_free: ClassVar[bool] = True
    activation: ActivationName = "none"

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the sum and the activation."""
        return _Add(self)


class _Add(nn.Module):
    def __init__(self, op: Add) -> None:
        super().__init__()
        self.after = nn.Sequential(*activation_layers(op.activation))

    def forward(self, *xs: Tensor) -> Tensor:
        total = xs[0]
        for x in xs[1:]:
            total = total + x
        return self.after(total)  # type: ignore[no-any-return]


class Multiply(_Elementwise):
    """Product of maps; (N, C, 1, 1) and one-channel inputs are broadcast."""

    op: Literal["multiply"] = "multiply"
    arity: ClassVar[tuple[int, int | None]] = (2, None)
    order_free: ClassVar[bool] = True

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the product of all inputs."""
        return _Multiply()


class _Multiply(nn.Module):
    def forward(self, *xs: Tensor) -> Tensor:
        product = xs[0]
        for x in xs[1:]:
            product = product * x
        return product


class Gate(_Elementwise):
    """x · sigmoid(gate): channel attention if the second input is (N, C, 1, 1) (BiSeNet's ARM, STDC)."""

    op: Literal["gate"] = "gate"
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the product of the first input and the sigmoid of the second."""
        return _Gate()


class _Gate(nn.Module):
    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return x * gate.sigmoid()


class Concat(Op):
    """Concatenation along channels: (N, C_i, H, W) … → (N, ΣC_i, H, W)."""

    op: Literal["concat"] = "concat"
    arity: ClassVar[tuple[int, int | None]] = (1, None)

    def out_channels_of(self, in_channels: Sequence[int]) -> int:
        """Return the sum of the inputs' channels."""
        return sum(in_channels)

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build `torch.cat` along channels."""
        return _Concat()


class _Concat(nn.Module):
    def forward(self, *xs: Tensor) -> Tensor:
        return torch.cat(xs, dim=1)


class Resize(Op):
    """Resizing to ceil(size · factor), or to the second input's height and width: (N, C, H, W) → (N, C, H', W').

    Bilinear with half-pixel centres, or nearest.
    """

    op: Literal["resize"] = "resize"
    arity: ClassVar[tuple[int, int | None]] = (1, 2)
    factor: Annotated[float, Field(ge=1 / 1024, le=1024)] = 1.0
    mode: Literal["bilinear", "nearest"] = "bilinear"

    def out_channels_of(self, in_channels: Sequence[int]) -> int:
        """Return the first input's channels; a factor and a second input exclude each other."""
        if len(in_channels) == 2 and self.factor != 1.0:
            raise ValueError(f"resize has factor {self.factor} and a second input, but must have one of them")
        return in_channels[0]

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the resizing module."""
        return _Resize(self)


class _Resize(nn.Module):
    def __init__(self, op: Resize) -> None:
        super().__init__()
        self.factor, self.mode = op.factor, op.mode

    def forward(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        height, width = x.shape[-2:] if reference is None else reference.shape[-2:]
        size = (height, width) if self.factor == 1 else (ceil(height * self.factor), ceil(width * self.factor))
        return bilinear(x, size) if self.mode == "bilinear" else F.interpolate(x, size=size, mode="nearest")


class Dropout(_Elementwise):
    """Dropout of single values with probability `probability`, in training only."""

    op: Literal["dropout"] = "dropout"
    probability: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the layer."""
        return FastDropout(self.probability)
