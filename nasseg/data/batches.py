"""Batches of images: endless and shuffled for training, in order for evaluation."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from nasseg.data.ahead import in_order
from nasseg.data.augment import Augment, moved, normalise
from nasseg.data.dataset import Sample, Split


@dataclass(frozen=True)
class Batch:
    """A batch for a network: `inputs` by node name, each (N, C, h, w), and `masks` int64 (N, H, W)."""

    inputs: dict[str, Tensor]
    masks: Tensor


def seeded(*numbers: int) -> torch.Generator:
    """Make a CPU generator whose stream depends on these numbers alone."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


def shuffled(items: int, batch_size: int, seed: int, start_step: int = 0) -> Iterator[list[int]]:
    """Yield endless batches of item indices from `start_step` on, one permutation of all items after the other.

    A batch depends on seed and step alone. It may span permutations, so that few items can fill a large batch.
    """
    epoch, order = -1, torch.empty(0)
    for step in count(start_step):
        batch = []
        for position in range(step * batch_size, (step + 1) * batch_size):
            if position // items != epoch:
                epoch = position // items
                order = torch.randperm(items, generator=seeded(seed, epoch))
            batch.append(int(order[position % items]))
        yield batch


class Pace:
    """How fast batches are prepared, and how long whoever takes them has waited."""

    def __init__(self) -> None:
        self.waited_s = 0.0
        """Seconds in which a batch was asked for and not there."""
        self._images, self._busy_s, self._readers, self._lock = 0, 0.0, 1, Lock()

    @property
    def images_per_s(self) -> float:
        """Images a second that all readers could prepare, did nobody keep them waiting; 0 before the first batch."""
        return self._images * self._readers / self._busy_s if self._busy_s else 0.0

    def prepared(self, images: int, seconds: float, readers: int) -> None:
        """Count the images that one of so many readers has prepared."""
        with self._lock:
            self._images, self._busy_s, self._readers = self._images + images, self._busy_s + seconds, max(1, readers)


def training_batches(
    split: Split,
    augment: Augment,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    device: torch.device | str = "cpu",
    readers: int = 0,
    part: tuple[int, int] = (0, 1),
    pace: Pace | None = None,
) -> Iterator[Batch]:
    """Yield endless augmented batches of `{"image": (N, 3, h, w)}`, shuffled anew each epoch.

    A batch depends on `seed` and the step alone: a run resumed with `start_step` sees what an uninterrupted one would
    have seen. So many `readers`, threads, prepare batches ahead; with 0, each is prepared as it is asked for. With a
    `part`, (number, of so many), only that part of each batch is read. Raises `ValueError` if batches have no such
    equal parts.
    """
    device, pace = torch.device(device), pace or Pace()
    number, parts = part
    share = batch_size // parts
    if batch_size != share * parts:
        raise ValueError(f"batch_size is {batch_size}, but must be a multiple of the {parts} workers that share it")

    def prepare(numbered: tuple[int, list[int]]) -> Batch:
        start = time.perf_counter()
        step, indices = numbered
        samples = [split[index] for index in indices[number * share : (number + 1) * share]]
        images, masks = [sample.image for sample in samples], [sample.mask for sample in samples]
        # The order of an epoch is drawn from (seed, epoch): the 1 keeps a step's views apart from it.
        views, truth = augment(images, masks, seeded(seed, step, 1), split.ignore_index, part, device)
        pace.prepared(len(samples), time.perf_counter() - start, readers)
        return Batch({"image": views}, truth)

    steps = enumerate(shuffled(len(split), batch_size, seed, start_step), start_step)
    batches = in_order(prepare, steps, readers)
    while True:
        asked = time.perf_counter()
        batch = next(batches)
        pace.waited_s += time.perf_counter() - asked
        yield batch


def evaluation_batches(
    split: Split, batch_size: int, device: torch.device | str = "cpu", readers: int = 0
) -> Iterator[tuple[Batch, tuple[str, ...]]]:
    """Yield the whole split once, in order, normalised, each batch with its samples' names.

    A batch ends early if the next image has another size: nothing is padded or scaled. So many `readers`, threads,
    read images ahead.
    """
    device = torch.device(device)
    group: list[Sample] = []
    for sample in in_order(split.__getitem__, range(len(split)), readers):
        if group and (len(group) == batch_size or sample.mask.shape != group[0].mask.shape):
            yield _stacked(group, device)
            group = []
        group.append(sample)
    if group:
        yield _stacked(group, device)


def _stacked(samples: list[Sample], device: torch.device) -> tuple[Batch, tuple[str, ...]]:
    images = moved(torch.stack([sample.image for sample in samples]), device)
    masks = moved(torch.stack([sample.mask for sample in samples]), device)
    return Batch({"image": normalise(images)}, masks.long()), tuple(sample.name for sample in samples)
