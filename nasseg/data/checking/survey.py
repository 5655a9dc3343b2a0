"""What is in a split: every sample is read once, several at a time."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from nasseg.data.ahead import in_order
from nasseg.data.dataset import DataError, Sample, Split

Show = Callable[[str, int, int], None]
"""Takes what is done, how many of it are, and how many there are."""
THUMBNAIL = 16
"""Height and width of the thumbnails by which images are compared."""
FLAT = 1.0
"""Standard deviation, in levels, of thumbnails that show nothing to compare."""
READERS = (os.cpu_count() or 1) + 4
"""Threads, which also wait for disks."""


def silent(what: str, done: int, of: int) -> None:
    """Show nothing."""


class _Read(NamedTuple):
    size: tuple[int, int]
    pixels: NDArray[np.int64]
    digest: str
    thumbnail: NDArray[np.float32]


@dataclass
class Survey:
    """What is in a split: the sizes of its images, the pixels of each class, the samples that cannot be used."""

    name: str
    classes: tuple[str, ...]
    ignore_index: int
    images: int
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How many images have each height and width."""
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    """How many pixels have each class index, `ignore_index` included."""
    images_with: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    """How many images have each class index."""
    void: list[str] = field(default_factory=list)
    """The samples of which all pixels are ignored."""
    bad: dict[str, DataError] = field(default_factory=dict)
    """The samples that cannot be used, each with the reason."""
    digests: dict[str, str] = field(default_factory=dict)
    """A hash of each image's pixels, by sample."""
    thumbnails: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """A small grey picture of each image, of mean 0 and length 1, or all 0 if it shows nothing."""

    @property
    def used(self) -> tuple[int, ...]:
        """The classes that occur."""
        return tuple(index for index in range(len(self.classes)) if self.pixels[index])

    @property
    def ignored_share(self) -> float:
        """The share of all pixels that is ignored."""
        return float(self.pixels[self.ignore_index] / max(1, self.pixels.sum()))

    def class_shares(self) -> dict[str, float]:
        """The share of each class in the pixels that are not ignored."""
        known = self.pixels[: len(self.classes)]
        return dict(zip(self.classes, (known / max(1, known.sum())).tolist(), strict=True))

    def balanced_weights(self) -> tuple[float, ...]:
        """Weigh each class by √(the median class's pixels / its own), rounded; 1 for a class that does not occur.

        Without the root this is SegNet's median frequency balancing (arXiv 1511.00561), under which frequent classes
        lost more than rare ones gained (docs/results/export.md).
        """
        pixels = self.pixels[: len(self.classes)]
        median = float(np.median(pixels[pixels > 0])) if pixels.any() else 1.0
        return tuple(float(f"{(median / count) ** 0.5:.4g}") if count else 1.0 for count in pixels)


def survey(split: Split, show: Show = silent) -> Survey:
    """Read every sample of a split, and note those that cannot be used instead of ending at the first."""
    found = Survey(split.name, split.classes, split.ignore_index, len(split))
    what = f"images of {split.name}"

    def read(index: int) -> _Read | DataError:
        try:
            return _read(split[index])
        except DataError as error:
            return error

    for done, result in enumerate(in_order(read, range(len(split)), READERS), start=1):
        _take_in(found, split.sample_name(done - 1), result)
        show(what, done, len(split))
    return found


def _read(sample: Sample) -> _Read:
    pixels = np.bincount(sample.mask.numpy().ravel(), minlength=256)
    image = sample.image
    digest = hashlib.blake2b(image.numpy().tobytes(), digest_size=16).hexdigest()
    grey = image.float().mean(0)[None, None]
    small = F.interpolate(grey, (THUMBNAIL, THUMBNAIL), mode="area")[0, 0].flatten()
    small = small - small.mean()
    flat = small.square().mean().sqrt() < FLAT
    thumbnail = torch.zeros_like(small) if flat else small / small.norm()
    return _Read((image.shape[1], image.shape[2]), pixels, digest, thumbnail.numpy())


def _take_in(found: Survey, name: str, result: _Read | DataError) -> None:
    if isinstance(result, DataError):
        found.bad[name] = result
        return
    found.sizes[result.size] += 1
    found.pixels += result.pixels
    found.images_with += result.pixels > 0
    if result.pixels[found.ignore_index] == result.pixels.sum():
        found.void.append(name)
    found.digests[name] = result.digest
    found.thumbnails[name] = result.thumbnail
