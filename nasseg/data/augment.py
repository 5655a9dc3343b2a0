"""Random scale, crop, flip and colour of images with their masks, on the device that holds them."""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

VERSION = 2
"""Part of the key of whatever is stored of views; increased by a change that makes others of the same images."""

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
GREY = (0.299, 0.587, 0.114)
"""The share of red, green and blue in brightness (ITU-R BT.601)."""


def normalise(images: Tensor) -> Tensor:
    """Normalise uint8 images (..., 3, H, W) to float by ImageNet's mean and standard deviation."""
    return _standardise(images.float().div_(255))


def denormalise(images: Tensor) -> Tensor:
    """Undo `normalise`: uint8 images (..., 3, H, W)."""
    mean, deviation = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, DEVIATION))
    return ((images * deviation + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor from the CPU without waiting for it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _standardise(images: Tensor) -> Tensor:
    """Do so in place."""
    mean, deviation = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, DEVIATION))
    return images.sub_(mean).div_(deviation)


Positive = Annotated[int, Field(gt=0)]


class Augment(BaseModel):
    """Random views of images and their masks; by default only normalised.

    Each image is scaled by a factor from `scale`, a window of size `crop` is placed at random within it (or around it,
    if it is smaller), half of them are mirrored if `flip`, and brightness, contrast and saturation change by factors
    within 1 ± `colour`. Pixels outside the image have the mean colour and are ignored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop: tuple[Positive, Positive] | None = None
    """Height and width of the result; `None` means those of the largest image."""
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.0, 1.0)
    flip: bool = False
    colour: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _ordered(self) -> "Augment":
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale is {self.scale}, but must go from the lowest factor to the highest")
        return self

    def __call__(
        self,
        images: Tensor | Sequence[Tensor],
        masks: Tensor | Sequence[Tensor],
        generator: torch.Generator,
        ignore_index: int = 255,
        part: tuple[int, int] = (0, 1),
        device: torch.device | str = "cpu",
    ) -> tuple[Tensor, Tensor]:
        """Return normalised views, float (N, 3, h, w), and their masks, int64 (N, h, w), both on `device`.

        `images` are N of uint8 (3, H, W) and `masks` N of uint8 (H, W), of one size or several, on the CPU. There,
        each is cut out, scaled and mirrored in 8 bits; the batch is recoloured and normalised on the device. All
        randomness comes from `generator`, which is on the CPU so that views do not depend on the device. Images that
        are a part of a batch, (number, of so many equal ones), have the views that they would have in the whole one.
        """
        device = torch.device(device)
        size = self.crop or (max(mask.shape[0] for mask in masks), max(mask.shape[1] for mask in masks))
        number, parts = part
        chances = torch.rand(parts * len(images), 7, generator=generator).chunk(parts)[number]
        views = torch.zeros(len(images), 3, *size, dtype=torch.uint8)
        truth = torch.full((len(images), *size), ignore_index, dtype=torch.uint8)
        inside = [
            self._place(image, mask, view, true, chance)
            for image, mask, view, true, chance in zip(images, masks, views, truth, chances.tolist(), strict=True)
        ]
        rows, columns = (_ones(spans, length) for spans, length in zip(zip(*inside, strict=True), size, strict=True))
        colours = 1 + self.colour * (2 * chances[:, 4:] - 1)
        finished = self._finished(*(moved(tensor, device) for tensor in (views, rows, columns, colours)))
        return finished, moved(truth, device).long()

    def _place(
        self, image: Tensor, mask: Tensor, view: Tensor, true: Tensor, chance: list[float]
    ) -> tuple[slice, slice]:
        """Put an image and its mask into a view and its truth; the rows and columns of these that they take."""
        low, high = self.scale
        factor = low * (high / low) ** chance[0]
        height, width = (max(1, round(length / factor)) for length in true.shape)
        rows, into_rows = _window(mask.shape[0], height, true.shape[0], chance[1])
        columns, into_columns = _window(mask.shape[1], width, true.shape[1], chance[2])
        image, mask = image[:, rows, columns], mask[rows, columns]
        size = into_rows.stop - into_rows.start, into_columns.stop - into_columns.start
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        mask = F.interpolate(mask[None, None], size, mode="nearest-exact")[0, 0]
        if self.flip and chance[3] < 0.5:
            image, mask = image.flip(-1), mask.flip(-1)
            into_columns = slice(true.shape[1] - into_columns.stop, true.shape[1] - into_columns.start)
        view[:, into_rows, into_columns], true[into_rows, into_columns] = image, mask
        return into_rows, into_columns

    def _finished(self, views: Tensor, rows: Tensor, columns: Tensor, colours: Tensor) -> Tensor:
        """Recolour and normalise uint8 views (N, 3, h, w), of whose rows (N, h) and columns (N, w) some are image.

        `colours` (N, 3) are factors of brightness, contrast and saturation. What is no image becomes zero.
        """
        if self.colour:
            areas = rows.sum(1) * columns.sum(1)
            views = _recoloured(views, areas[:, None, None, None], colours.T[..., None, None, None])
        else:
            views = views.float().div_(255)
        return _standardise(views).mul_(rows[:, None, :, None]).mul_(columns[:, None, None, :])


def _window(length: int, window: int, size: int, chance: float) -> tuple[slice, slice]:
    """Place a window of so many pixels on a side, anywhere inside it if there is room, else anywhere around it.

    Return what it holds of the side, and where that lies as the window is scaled to `size` pixels.
    """
    room = length - window
    start = min(room, 0) + int(chance * (abs(room) + 1))
    held = slice(max(start, 0), min(start + window, length))
    first = min(round((held.start - start) * size / window), size - 1)
    return held, slice(first, max(round((held.stop - start) * size / window), first + 1))


def _ones(spans: Sequence[slice], length: int) -> Tensor:
    """Return rows of `length`, float (N, length), that are one in their span and zero beside it."""
    ones = torch.zeros(len(spans), length)
    for row, span in zip(ones, spans, strict=True):
        row[span] = 1
    return ones


def _recoloured(views: Tensor, areas: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, then contrast about the mean grey, then saturation of uint8 views; to float, 0 to 1.

    Views are zero outside their `areas` in pixels, (N, 1, 1, 1); `factors` are (3, N, 1, 1, 1). Each step keeps to 0
    to 1. One new tensor is changed in place: new ones for each step took two thirds of the time.
    """
    brightness, contrast, saturation = factors
    images = views.float().mul_(brightness / 255).clamp_(max=1)
    mean = _grey(images.sum((2, 3), keepdim=True)) / areas
    images.mul_(contrast).add_(mean * (1 - contrast)).clamp_(0, 1)
    grey = _grey(images).mul_(1 - saturation)
    return images.mul_(saturation).add_(grey).clamp_(0, 1)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images[:, :1], images[:, 1:2], images[:, 2:]
    return (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])
