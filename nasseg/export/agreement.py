"""Whether an exported file computes what PyTorch computes, on real images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from nasseg.data import Split, normalise
from nasseg.export.files import ExportedNetwork
from nasseg.export.options import ExportOptions
from nasseg.export.shipped import reference_of
from nasseg.network import Network

IMAGES = 4
TOLERANCE = 1e-3
"""Of the largest logit: how far an exact format may be off. Rounding stays a hundred times below it."""


class Agreement(BaseModel):
    """How a file's results on some images of one size differ from PyTorch's in float32.

    `largest_difference` is that of the logits, `None` for a file that gives classes; `changed_pixels` is the share of
    the pixels that get another class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[int, int]
    images: int
    largest_difference: float | None
    largest_logit: float
    changed_pixels: float

    def __str__(self) -> str:
        text = f"{self.size[0]}x{self.size[1]}, {self.images} image{'s' * (self.images > 1)}: "
        if self.largest_difference is not None:
            text += f"logits differ by {self.largest_difference:.2g} at most (of up to {self.largest_logit:.3g}), "
        return f"{text}{self.changed_pixels:.3%} of the pixels change class"


def some(split: Split, number: int) -> list[Tensor]:
    """Take so many images, uint8 (3, H, W), or all there are, spread evenly over a split."""
    number = min(number, len(split))
    return [split[place * len(split) // number].image for place in range(number)]


def as_taken(image: Tensor, options: ExportOptions) -> Tensor:
    """Turn an image, uint8 (3, H, W), into what the file takes, (1, 3, H, W); one of fixed size has it resized."""
    pixels = image[None]
    if options.images == "fixed" and tuple(image.shape[-2:]) != options.size:
        resized = F.interpolate(pixels.float(), options.size, mode="bilinear", antialias=True)
        pixels = resized.round().clamp(0, 255).to(torch.uint8)
    return pixels if options.normalise else normalise(pixels)


@torch.inference_mode()
def agreements(network: Network, exported: ExportedNetwork, images: Sequence[Tensor]) -> Iterator[Agreement]:
    """Compare a file with its network on images, uint8 (3, H, W): as they are, then cut to odd heights and widths.

    A file for a fixed size is compared at that size alone.
    """
    options = exported.info.options
    views = [list(images)]
    if options.images != "fixed":
        views.append([image[:, : _odd(image.shape[-2]), : _odd(image.shape[-1])] for image in images])
    reference = reference_of(network, options)
    for view in views:
        by_size: dict[tuple[int, int], list[Tensor]] = {}
        for image in view:
            taken = as_taken(image, options)
            by_size.setdefault((taken.shape[-2], taken.shape[-1]), []).append(taken)
        for size, group in by_size.items():
            yield _agreement(exported, reference, size, group)


def _agreement(
    exported: ExportedNetwork, reference: torch.nn.Module, size: tuple[int, int], images: list[Tensor]
) -> Agreement:
    argmax = exported.info.options.argmax
    difference = largest = changed = 0.0
    for image in images:
        logits, made = reference(image), exported.run(image)
        largest = max(largest, float(logits.abs().max()))
        if not argmax:
            difference = max(difference, float((made - logits).abs().max()))
            made = made.argmax(dim=1)
        changed += float((made != logits.argmax(dim=1)).float().mean()) / len(images)
    return Agreement(
        size=size,
        images=len(images),
        largest_difference=None if argmax else difference,
        largest_logit=largest,
        changed_pixels=changed,
    )


def _odd(length: int) -> int:
    """The next smaller odd length."""
    return length - 1 - length % 2
