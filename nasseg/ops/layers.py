"""The few PyTorch layers that operators are made of: normalisation, activation, resizing."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormName = Literal["batch", "batch_1e-3", "none"]
"""`batch_1e-3` is batch norm with TensorFlow's usual epsilon; PyTorch's is 1e-5."""
ActivationName = Literal["relu", "relu6", "sigmoid", "none"]

_ACTIVATIONS: dict[str, Callable[[bool], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "sigmoid": lambda inplace: nn.Sigmoid(),
}
"""Each layer by its name, from whether it may work in place."""
_EPSILON = {"batch": 1e-5, "batch_1e-3": 1e-3}


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that falls back to its running statistics if a channel has a single value.

    Image pooling makes 1×1 maps; a batch of one then has no variance, and PyTorch's own layer refuses to train.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W) per channel."""
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class FastDropout(nn.Dropout):
    """Dropout whose noise takes a processor a third of the time: a 64-bit random number decides on four values.

    PyTorch draws a double for each, an eighth of what a dense prediction cell's training step took.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Drop values of (N, C, H, W); the probability is rounded to a multiple of 2⁻¹⁶."""
        if not self.training or self.p == 0 or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        count = input.numel()
        bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count]
        noise = torch.empty(count, dtype=input.dtype)
        torch.ge(bits, round(self.p * 2**16) - 2**15, out=noise).mul_(1 / (1 - self.p))
        return input * noise.as_strided(input.shape, torch.empty_like(input, device="meta").stride())


def norm_layers(norm: NormName, channels: int) -> list[nn.Module]:
    """The normalisation layer as a list, empty for "none"."""
    return [] if norm == "none" else [BatchNorm(channels, eps=_EPSILON[norm])]


def activation_layers(activation: ActivationName, *, inplace: bool = True) -> list[nn.Module]:
    """Return the activation layer as a list, empty for "none". Not in place if its input is another node's output."""
    return [] if activation == "none" else [_ACTIVATIONS[activation](inplace)]


def bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, C, H, W) to `size` bilinearly with half-pixel centres; a map that fits already is returned as is."""
    return x if fits(x, size) else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def fits(x: Tensor, size: tuple[int, int]) -> bool:
    """Whether a map (N, C, H, W) has this size; false if that depends on the image, in an export for any size."""
    height, width = x.shape[-2:]
    if known(height, width, *size):
        return (height, width) == size
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    # A plain comparison would hold the export to images for which it gives the same answer.
    return statically_known_true(height == size[0]) and statically_known_true(width == size[1])


def known(*lengths: int) -> bool:
    """Whether lengths are numbers. In an export for images of any size they are symbols, which must not be compared."""
    return all(isinstance(length, int) for length in lengths)


def sequential(layers: list[nn.Module]) -> nn.Module:
    """Chain the layers; a single one is returned bare, so that its parameters keep their plain names."""
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which mixed precision is off, for what must be computed in the format of its inputs."""
    # The meta device has none, and refuses the context.
    return torch.autocast(device.type, enabled=False) if torch.amp.is_autocast_available(device.type) else nullcontext()
