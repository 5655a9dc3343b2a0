"""The base of all data sets: named splits of images with their masks of class indices."""

import os
from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor
from torch.utils import data

from nasseg.data.ahead import in_order


class DataError(ValueError):
    """Unusable data: one line with the file, what is wrong with it, and the rule."""


class Sample(NamedTuple):
    """One image with its truth: `image` uint8 (3, H, W) in RGB, `mask` uint8 (H, W) of class indices."""

    name: str
    image: Tensor
    mask: Tensor


class Split(data.Dataset[Sample], ABC):
    """A part of a data set, in a fixed order: `split[i]` is its i-th sample."""

    name: str
    classes: tuple[str, ...]
    ignore_index: int
    notes: tuple[str, ...] = ()
    """Lines for people on what was left out, such as images without a mask."""
    is_computed: bool = False
    """Whether samples are computed, not read, so that none can be wrong and there is nothing to check."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def typical_size(self) -> tuple[int, int]:
        """Height and width, in pixels, of the image of median area among up to 25 spread over the split.

        Crops and costs follow it where images differ in size.
        """
        last = len(self) - 1
        sizes = [self.size(index) for index in sorted({round(last * part / 24) for part in range(25)})]
        return sorted(sizes, key=lambda size: size[0] * size[1])[(len(sizes) - 1) // 2]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image, in pixels; a split that knows them without reading the sample says so here."""
        height, width = self[index].mask.shape
        return height, width

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A value for cache keys that changes exactly when the content may have changed; cheap to compute."""

    def sample_name(self, index: int) -> str:
        """The name of a sample; a split that knows it without reading the sample says so here."""
        return self[index].name

    def check(self) -> None:
        """Check every sample; raises `DataError` for the first one that training could not use."""
        if self.is_computed:
            return
        for _ in in_order(self.__getitem__, range(len(self)), os.cpu_count() or 1):
            pass


class Dataset(ABC):
    """Splits of images that share their classes. `open_dataset(dataset.spec)` opens it again."""

    name: str
    spec: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""

    @abstractmethod
    def union(self, names: tuple[str, ...]) -> Split:
        """The union of the named splits, all of which exist."""

    def split(self, name: str) -> Split:
        """Open the split of that name: `train+val` joins splits, `train@20%` is drawn from one (`nasseg.data.drawn`).

        Raises `DataError` if one is unknown or empty.
        """
        from nasseg.data.drawn import Drawing

        whole, _, drawing = name.partition("@")
        names = tuple(whole.split("+"))
        for part in names:
            if part not in self.splits():
                draw = "; draw one from another with --val-split 20%" if part == "val" else ""
                raise DataError(f"{self.spec} has no split {part!r}: its splits are {', '.join(self.splits())}{draw}")
        split = self.union(names)
        if len(split) == 0:
            left_out = f" ({split.notes[0]})" if split.notes else ""
            raise DataError(f"split {name!r} of {self.spec} is empty, but must hold at least one image{left_out}")
        return Drawing.parse(drawing).of(split) if drawing else split
