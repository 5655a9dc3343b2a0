"""A split seen at a smaller size."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nasseg.data.dataset import Sample, Split


class Resized(Split):
    """Another split with its images scaled by `factor` (bilinear, antialiased) and its masks sampled to fit."""

    def __init__(self, split: Split, factor: float) -> None:
        self.name, self.classes, self.ignore_index = split.name, split.classes, split.ignore_index
        self._split, self._factor = split, factor

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Sample:
        sample = self._split[index]
        if self._factor == 1:
            return sample
        size = scaled((sample.mask.shape[0], sample.mask.shape[1]), self._factor)
        image = F.interpolate(sample.image[None].float(), size, mode="bilinear", antialias=True)[0]
        mask = F.interpolate(sample.mask[None, None].float(), size, mode="nearest-exact")[0, 0]
        return Sample(sample.name, image.round().to(torch.uint8), mask.to(torch.uint8))

    @property
    def fingerprint(self) -> str:
        """The split's own and the factor."""
        return f"{self._split.fingerprint}×{self._factor}"

    def check(self) -> None:
        """Check the split itself."""
        self._split.check()


def scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Scale (height, width) by `factor`, to whole pixels."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
