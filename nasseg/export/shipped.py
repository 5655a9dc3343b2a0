"""The graph that is shipped: a network in inference form, with what else users want inside."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from nasseg.cost.backends import to_onnx, to_program
from nasseg.cost.inference import inference_form
from nasseg.data import normalise
from nasseg.export.options import ExportOptions
from nasseg.network import Network
from nasseg.ops.layers import bilinear


class Shipped(nn.Module):
    """From an image as `ExportOptions` describes it to logits or class indices."""

    def __init__(self, network: nn.Module, options: ExportOptions) -> None:
        super().__init__()
        self.network, self.options = network, options

    def forward(self, image: Tensor) -> Tensor:
        """Segment (1, 3, H, W)."""
        options = self.options
        x = normalise(image) if options.normalise else image
        if options.images == "resized":
            x = bilinear(x, options.size)
        logits: Tensor = self.network(x.to(options.made.dtype)).float()
        if options.images == "resized":
            logits = bilinear(logits, (image.shape[-2], image.shape[-1]))
        return logits.argmax(dim=1).to(torch.uint8) if options.argmax else logits


def example(options: ExportOptions) -> Tensor:
    """Make an image of noise, as the file will take it."""
    pixels = torch.randint(256, (1, 3, *options.size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return pixels if options.normalise else normalise(pixels)


@torch.no_grad()
def program_of(network: Network, options: ExportOptions) -> torch.export.ExportedProgram:
    """Export a trained network as a program of PyTorch; the network is left as it is."""
    image = example(options)
    form = inference_form(network, (normalise(image) if options.normalise else image,))
    form.to(memory_format=torch.contiguous_format, dtype=options.made.dtype)  # type: ignore[call-overload]
    return to_program(Shipped(form, options), (image,), any_size=options.images != "fixed")


def onnx_of(network: Network, options: ExportOptions) -> bytes:
    """Export a trained network as ONNX, its input named `image`, its output `logits` or `classes`."""
    return to_onnx(program_of(network, options), "image", "classes" if options.argmax else "logits")


def reference_of(network: Network, options: ExportOptions) -> Shipped:
    """Return what PyTorch itself computes from the same images: logits, in float32."""
    exact = options.model_copy(update={"format": "torch", "argmax": False})
    return Shipped(copy.deepcopy(network).eval(), exact)
