"""Batches of images: endless and shuffled for training, in order for evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from nasseg.data.augment import Augment, normalise
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


class _BatchSampler:
    """The form of `shuffled` that a `DataLoader` takes, of each batch one of several equal parts."""

    def __init__(self, items: int, batch_size: int, seed: int, start_step: int, part: tuple[int, int]) -> None:
        self._arguments = (items, batch_size, seed, start_step)
        number, parts = part
        share = batch_size // parts
        self._part = slice(number * share, (number + 1) * share)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch[self._part] for batch in shuffled(*self._arguments))


def training_batches(
    split: Split,
    augment: Augment,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    device: torch.device | str = "cpu",
    workers: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Yield endless augmented batches of `{"image": (N, 3, h, w)}`, shuffled anew each epoch.

    A batch depends on `seed` and the step alone: a run resumed with `start_step` sees what an uninterrupted one would
    have seen. `workers` processes read samples ahead; with 0, this one reads them. With a `part`, (number, of so many),
    only that part of each batch is read. Raises `ValueError` if batches have no such equal parts.
    """
    if batch_size % part[1]:
        raise ValueError(f"batch_size is {batch_size}, but must be a multiple of the {part[1]} workers that share it")
    device = torch.device(device)
    loader = DataLoader(
        split,
        batch_sampler=_BatchSampler(len(split), batch_size, seed, start_step, part),
        num_workers=workers,
        collate_fn=_as_list,
        pin_memory=device.type == "cuda",
        generator=seeded(seed),
    )
    for step, samples in enumerate(loader, start=start_step):
        images, masks = (
            [tensor.to(device, non_blocking=True) for tensor in tensors]
            for tensors in ([s.image for s in samples], [s.mask for s in samples])
        )
        # The order of an epoch is drawn from (seed, epoch): the 1 keeps a step's views apart from it.
        views, truth = augment(images, masks, seeded(seed, step, 1), split.ignore_index, part)
        yield Batch({"image": views}, truth)


def evaluation_batches(
    split: Split, batch_size: int, device: torch.device | str = "cpu", workers: int = 0
) -> Iterator[tuple[Batch, tuple[str, ...]]]:
    """Yield the whole split once, in order, normalised, each batch with its samples' names.

    A batch ends early if the next image has another size: nothing is padded or scaled.
    """
    device = torch.device(device)
    loader = DataLoader(
        split, batch_size=None, num_workers=workers, pin_memory=device.type == "cuda", generator=seeded(0)
    )
    group: list[Sample] = []
    for sample in loader:
        if group and (len(group) == batch_size or sample.mask.shape != group[0].mask.shape):
            yield _in_order(group, device)
            group = []
        group.append(sample)
    if group:
        yield _in_order(group, device)


def _in_order(samples: list[Sample], device: torch.device) -> tuple[Batch, tuple[str, ...]]:
    images = torch.stack([sample.image for sample in samples]).to(device, non_blocking=True)
    masks = torch.stack([sample.mask for sample in samples]).to(device, non_blocking=True)
    return Batch({"image": normalise(images)}, masks.long()), tuple(sample.name for sample in samples)


def _as_list(samples: list[Sample]) -> list[Sample]:
    return samples
