"""Features that stay on a device, so that a step copies nothing to it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nasseg.data.augment import moved
from nasseg.data.batches import Batch
from nasseg.data.cache import FeatureCache, as_batch

STEPS_DRAWN = 256
"""Steps whose samples are told to the device at once."""
COPIED_BYTES = 64 << 20
"""How much is copied to the device at once."""


class ResidentFeatures:
    """The features of a cache on a device, as they are stored there and channels last; its batches are the cache's.

    Raises `torch.OutOfMemoryError` if the device has no room for them.
    """

    def __init__(self, cache: FeatureCache, device: torch.device) -> None:
        self._cache, self._device = cache, device
        self._rows = {name: _copied(array, device) for name, array in cache.arrays.items()}

    def batches(self, batch_size: int, seed: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield endless batches of shuffled samples, each in a random view, from `seed` and the step alone."""
        steps = self._cache.drawn(batch_size, seed, start_step)
        while True:
            drawn = moved(torch.from_numpy(np.stack(list(islice(steps, STEPS_DRAWN)))), self._device)
            for rows in drawn:
                yield self._batch(rows)

    def sequential(self, batch_size: int) -> Iterator[Batch]:
        """Yield the first view of every sample once, in order."""
        for start in range(0, self._cache.samples, batch_size):
            yield self._batch(slice(start, min(start + batch_size, self._cache.samples)))

    def _batch(self, at: Tensor | slice) -> Batch:
        return as_batch({name: _channels_first(array[at]) for name, array in self._rows.items()})


def _copied(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """Copy maps (rows, C, h, w) to a device as (rows, h, w, C), and anything else as it is."""
    copy = torch.empty((0,))
    step = max(1, COPIED_BYTES // array[0].nbytes)
    for start in range(0, len(array), step):
        rows = _channels_last(moved(torch.from_numpy(np.array(array[start : start + step])), device))
        if start == 0:
            copy = torch.empty((len(array), *rows.shape[1:]), dtype=rows.dtype, device=device)
        copy[start : start + step] = rows
    return copy


def _channels_last(rows: Tensor) -> Tensor:
    return rows.movedim(1, -1) if rows.ndim == 4 else rows


def _channels_first(rows: Tensor) -> Tensor:
    return rows.movedim(-1, 1) if rows.ndim == 4 else rows
