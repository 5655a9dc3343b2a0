"""Random scale, crop, flip and colour of images with their masks, on the device that holds them."""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def normalise(images: Tensor) -> Tensor:
    """Normalise uint8 images (..., 3, H, W) to float by ImageNet's mean and standard deviation."""
    return _standardise(images.float() / 255)


def denormalise(images: Tensor) -> Tensor:
    """Undo `normalise`: uint8 images (..., 3, H, W)."""
    mean, deviation = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, DEVIATION))
    return ((images * deviation + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _standardise(images: Tensor) -> Tensor:
    mean, deviation = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, DEVIATION))
    return (images - mean) / deviation


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
    ) -> tuple[Tensor, Tensor]:
        """Return normalised views, float (N, 3, h, w), and their masks, int64 (N, h, w).

        `images` are N of uint8 (3, H, W) and `masks` N of uint8 (H, W), of one size or several. All randomness comes
        from `generator`, which is on the CPU so that views do not depend on the device. Images that are a part of a
        batch, (number, of so many equal ones), have the views that they would have in the whole one.
        """
        size = self.crop or (max(mask.shape[0] for mask in masks), max(mask.shape[1] for mask in masks))
        number, parts = part
        chances = torch.rand(parts * len(images), 7, generator=generator).chunk(parts)[number].tolist()
        views = [
            self._view(image, mask, size, chance, ignore_index)
            for image, mask, chance in zip(images, masks, chances, strict=True)
        ]
        return torch.stack([image for image, _ in views]), torch.stack([mask for _, mask in views])

    def _view(
        self, image: Tensor, mask: Tensor, size: tuple[int, int], chance: list[float], ignore_index: int
    ) -> tuple[Tensor, Tensor]:
        low, high = self.scale
        factor = low * (high / low) ** chance[0]
        height, width = (max(1, round(length / factor)) for length in size)
        top = _offset(mask.shape[0] - height, chance[1])
        left = _offset(mask.shape[1] - width, chance[2])
        rows = slice(max(top, 0), top + height)
        columns = slice(max(left, 0), left + width)
        image, mask = image[:, rows, columns], mask[rows, columns]

        image = image.float() / 255
        if self.colour:
            image = _recolour(image, [1 + self.colour * (2 * c - 1) for c in chance[4:]])
        before = (max(-left, 0), max(-top, 0))
        padding = (before[0], width - before[0] - mask.shape[1], before[1], height - before[1] - mask.shape[0])
        image = F.pad(_standardise(image), padding)
        mask = F.pad(mask, padding, value=ignore_index)

        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        mask = F.interpolate(mask[None, None], size, mode="nearest-exact")[0, 0].long()
        if self.flip and chance[3] < 0.5:
            image, mask = image.flip(-1), mask.flip(-1)
        return image, mask


def _offset(room: int, chance: float) -> int:
    """Place the start of a window: anywhere inside the image if there is room, else anywhere around it."""
    return min(room, 0) + int(chance * (abs(room) + 1))


def _recolour(image: Tensor, factors: list[float]) -> Tensor:
    from kornia import enhance

    brightness, contrast, saturation = factors
    image = enhance.adjust_brightness_accumulative(image, brightness)
    image = enhance.adjust_contrast_with_mean_subtraction(image, contrast)
    return enhance.adjust_saturation_with_gray_subtraction(image, saturation)  # type: ignore[no-any-return]
