"""Some samples of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from nasseg.data.batches import seeded
from nasseg.data.dataset import DataError, Sample, Split


class Subset(Split):
    """The samples of another split at `indices`, in their order."""

    def __init__(self, split: Split, indices: Sequence[int]) -> None:
        self.name, self.classes, self.ignore_index = split.name, split.classes, split.ignore_index
        self.notes, self.is_computed = split.notes, split.is_computed
        self._split, self.indices = split, tuple(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self._split[self.indices[index]]

    def sample_name(self, index: int) -> str:
        """The whole split's name of it."""
        return self._split.sample_name(self.indices[index])

    def size(self, index: int) -> tuple[int, int]:
        """The whole split's size of it."""
        return self._split.size(self.indices[index])

    @property
    def fingerprint(self) -> str:
        """The split's own and a hash of the indices."""
        return f"{self._split.fingerprint}[{hashlib.sha256(str(self.indices).encode()).hexdigest()[:16]}]"


def halves(split: Split, seed: int) -> tuple[Subset, Subset]:
    """Split the samples into two disjoint halves drawn by `seed`; of an odd number, the first gets one more.

    Raises `DataError` for fewer than 2 samples.
    """
    if len(split) < 2:
        raise DataError(f"split {split.name!r} has {len(split)} image, but must have 2 to be halved; give more images")
    order = torch.randperm(len(split), generator=seeded(seed)).tolist()
    middle = (len(order) + 1) // 2
    return Subset(split, sorted(order[:middle])), Subset(split, sorted(order[middle:]))
