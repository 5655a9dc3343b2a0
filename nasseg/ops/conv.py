"""Convolutions: plain, atrous, grouped, transposed, and separable."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from torch import Tensor, nn

from nasseg.ops.base import Channels, OutChannelsOp, Pair, Step, as_pair
from nasseg.ops.depthwise import convolve
from nasseg.ops.layers import ActivationName, NormName, activation_layers, known, norm_layers, sequential


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError(f"kernel is {kernel}, but must be odd, so that the output stays centred on the input")
    return kernel


Kernel = Annotated[int, Field(ge=1, le=64)]
OddKernel = Annotated[Kernel, AfterValidator(_odd)]
Rate = Annotated[tuple[Step, Step], BeforeValidator(as_pair)]


Padding = Literal["centred", "tensorflow"]
"""Where a stride puts the windows: `centred` pads both sides alike; `tensorflow` pads only as much as the last window
needs, an odd row or column of it at the end. Without a stride the two are the same."""


def conv_layer(
    in_channels: int,
    channels: int,
    kernel: int,
    *,
    stride: int = 1,
    rate: Pair = (1, 1),
    groups: int = 1,
    bias: bool,
    padding: Padding = "centred",
) -> nn.Conv2d:
    """A convolution padded so that stride 1 keeps the size and stride s gives ceil(size / s)."""
    half = (rate[0] * (kernel - 1) // 2, rate[1] * (kernel - 1) // 2)
    layer: type[nn.Conv2d] = _DepthwiseConv2d if groups == in_channels == channels else nn.Conv2d
    if padding == "tensorflow" and stride > 1:
        layer = _TensorFlowConv2d
    return layer(in_channels, channels, kernel, stride, half, dilation=rate, groups=groups, bias=bias)


class _DepthwiseConv2d(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return convolve(self, input, self.padding)  # type: ignore[arg-type] # a pair, as `conv_layer` gave it


class _TensorFlowConv2d(nn.Conv2d):
    """Padded by TensorFlow's rule for "same", which depends on the input's size."""

    def forward(self, input: Tensor) -> Tensor:
        sides = zip(input.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True)
        down, right = (
            max(rate * (kernel - 1) + 1 - stride + -size % stride, 0) for size, kernel, stride, rate in sides
        )
        padded = F.pad(input, (right // 2, right - right // 2, down // 2, down - down // 2))
        return convolve(self, padded, (0, 0))


class Conv(OutChannelsOp):
    """k×k convolution, then normalisation and activation; atrous if `rate` (h, w) is above 1.

    (N, C, H, W) → (N, out_channels, ceil(H / stride), ceil(W / stride)). Atrous convolution: Chen et al., DeepLab
    (arXiv 1606.00915, §3.1); one rate per axis: DPC (arXiv 1809.04184, §3.1).
    `pre_activation` comes before the convolution (Auto-DeepLab's order).
    """

    op: Literal["conv"] = "conv"
    later: ClassVar[frozenset[str]] = frozenset({"padding"})
    out_channels: Channels
    kernel: OddKernel = 3
    stride: Step = 1
    rate: Rate = (1, 1)
    groups: Channels = 1
    bias: bool = False
    norm: NormName = "batch"
    activation: ActivationName = "relu"
    pre_activation: ActivationName = "none"
    padding: Padding = "centred"

    def out_channels_of(self, in_channels: Sequence[int]) -> int:
        """Return `out_channels`; both channel counts must be multiples of `groups`."""
        (channels,) = in_channels
        if channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"groups is {self.groups}, but must divide the input's {channels} and the output's "
                f"{self.out_channels} channels"
            )
        return self.out_channels

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build convolution, norm and activation as layers 0, 1, 2; a bare convolution if there is nothing else."""
        (channels,) = in_channels
        conv = conv_layer(
            channels,
            self.out_channels,
            self.kernel,
            stride=self.stride,
            rate=self.rate,
            groups=self.groups,
            bias=self.bias,
            padding=self.padding,
        )
        return sequential(
            [
                *activation_layers(self.pre_activation, inplace=False),
                conv,
                *norm_layers(self.norm, self.out_channels),
                *activation_layers(self.activation),
            ]
        )


def conv1x1(out_channels: int) -> Conv:
    """Make a 1×1 convolution with batch norm and ReLU."""
    return Conv(out_channels=out_channels, kernel=1)


def atrous3x3(out_channels: int, rate: int | Pair) -> Conv:
    """Make a dense atrous 3×3 convolution at `rate` (h, w), with batch norm and ReLU."""
    return Conv(out_channels=out_channels, kernel=3, rate=as_pair(rate))


def logits1x1(classes: int) -> Conv:
    """Make a 1×1 convolution with bias and nothing after it: class scores."""
    return Conv(out_channels=classes, kernel=1, bias=True, norm="none", activation="none")


class SeparableConv(OutChannelsOp):
    """Depthwise k×k convolution (at `rate`), then pointwise 1×1, each with its own norm and activation.

    (N, C, H, W) → (N, out_channels, ceil(H / stride), ceil(W / stride)). DeepLabV3+ (arXiv 1802.02611, §3.2) and DPC's
    atrous operator have norm and ReLU after both halves; Auto-DeepLab's (arXiv 1901.02985, §3.1) has none between.
    """

    op: Literal["separable_conv"] = "separable_conv"
    kernel: OddKernel = 3
    stride: Step = 1
    rate: Rate = (1, 1)
    norm: NormName = "batch"
    activation: ActivationName = "relu"
    depthwise_norm: NormName = "batch"
    depthwise_activation: ActivationName = "relu"
    pre_activation: ActivationName = "none"

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the two halves as one sequence of layers."""
        (channels,) = in_channels
        depthwise = Conv(
            out_channels=channels,
            kernel=self.kernel,
            stride=self.stride,
            rate=self.rate,
            groups=channels,
            norm=self.depthwise_norm,
            activation=self.depthwise_activation,
            pre_activation=self.pre_activation,
        )
        pointwise = Conv(out_channels=self.out_channels, kernel=1, norm=self.norm, activation=self.activation)
        return nn.Sequential(depthwise.build([channels]), pointwise.build([channels]))


class TransposedConv(OutChannelsOp):
    """k×k transposed convolution with stride s; a second input gives the size to crop or pad the result to.

    (N, C, H, W) → (N, out_channels, s·H, s·W), or the second input's (H', W'), which may differ from (s·H, s·W) by
    less than s. `init="bilinear"` starts as bilinear upsampling (Long et al., FCN, arXiv 1411.4038, §3.3).
    """

    op: Literal["transposed_conv"] = "transposed_conv"
    arity: ClassVar[tuple[int, int | None]] = (1, 2)
    kernel: Kernel = 2
    stride: Step = 2
    bias: bool = False
    norm: NormName = "none"
    activation: ActivationName = "none"
    init: Literal["default", "bilinear"] = "default"

    @model_validator(mode="after")
    def _padding_is_whole(self) -> "TransposedConv":
        if self.kernel < self.stride or (self.kernel - self.stride) % 2:
            raise ValueError(
                f"kernel is {self.kernel}, but must be stride {self.stride} plus an even number, so that the output is "
                "stride times the input"
            )
        return self

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the convolution, a crop or pad to the reference, then norm and activation."""
        return _TransposedConv(self, in_channels[0])


class _TransposedConv(nn.Module):
    def __init__(self, op: TransposedConv, in_channels: int) -> None:
        super().__init__()
        padding = (op.kernel - op.stride) // 2
        self.conv = nn.ConvTranspose2d(in_channels, op.out_channels, op.kernel, op.stride, padding, bias=op.bias)
        self.after = nn.Sequential(*norm_layers(op.norm, op.out_channels), *activation_layers(op.activation))
        if op.init == "bilinear":
            _init_bilinear(self.conv)

    def forward(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        x = self.conv(x)
        if reference is not None:
            x = _cropped_or_padded(x, (reference.shape[-2], reference.shape[-1]), self.conv.stride[0])
        return self.after(x)  # type: ignore[no-any-return]


def _cropped_or_padded(x: Tensor, size: Pair, stride: int) -> Tensor:
    """Crop (N, C, H, W) to `size`, or pad it with zeros, at its ends, by less than `stride`."""
    height, width = x.shape[-2:]
    if not known(height, width, *size):
        return F.pad(x, (0, stride - 1, 0, stride - 1))[..., : size[0], : size[1]]
    down, right = size[0] - height, size[1] - width
    if max(abs(down), abs(right)) >= stride:
        raise ValueError(
            f"the second input is {size[0]}×{size[1]}, but must be within a stride of {height}×{width}, the transposed "
            "convolution's output"
        )
    return F.pad(x, (0, right, 0, down)) if down or right else x


def _init_bilinear(conv: nn.ConvTranspose2d) -> None:
    """Set each output channel to the bilinear upsampling of the input channel of the same number."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    centre = (kernel - 1) / 2
    ramp = [max(0.0, 1 - abs(i - centre) / stride) for i in range(kernel)]
    nn.init.zeros_(conv.weight)
    weight = conv.weight.data
    line = weight.new_tensor(ramp)
    for channel in range(min(conv.in_channels, conv.out_channels)):
        weight[channel, channel] = line[:, None] * line[None, :]
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
