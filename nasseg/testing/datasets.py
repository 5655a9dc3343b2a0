"""The suite for data sets."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable
from typing import ClassVar

import pytest
import torch

from nasseg.data import (
    ENTRY_POINTS,
    Augment,
    DataError,
    Dataset,
    Sample,
    Split,
    datasets,
    open_dataset,
    training_batches,
)
from nasseg.testing.suite import Suite, elsewhere, how_to_register

MOST_SAMPLES = 8
"""Samples of a split that a test reads, including the first and the last."""


def some_of(split: Split) -> list[Sample]:
    """Read a few samples of a split."""
    last = len(split) - 1
    return [split[index] for index in sorted({last * i // (MOST_SAMPLES - 1) for i in range(MOST_SAMPLES)})]


def digest(samples: Iterable[Sample]) -> str:
    """Hash names, images and masks."""
    found = hashlib.sha256()
    for name, image, mask in samples:
        found.update(repr((name, image.shape, mask.shape)).encode())
        found.update(image.contiguous().numpy().tobytes() + mask.contiguous().numpy().tobytes())
    return found.hexdigest()


def state(splits: Iterable[Split]) -> dict[str, tuple[str, str]]:
    """Collect the fingerprint and a hash of the content of each split, by name."""
    return {split.name: (split.fingerprint, digest(some_of(split))) for split in splits}


def opened_state(spec: str) -> dict[str, tuple[str, str]]:
    """Open a data set and collect the state of its splits."""
    dataset = open_dataset(spec)
    return state(map(dataset.split, dataset.splits()))


class DatasetConformance(Suite):
    """Checks of a data set, whose splits must all be small enough to be read completely.

    class TestSquares(DatasetConformance):
        dataset = Squares("8")
    """

    subject = "dataset"
    dataset: ClassVar[Dataset]

    def test_its_description_agrees_with_itself(self, dataset: Dataset) -> None:
        """Fix: one colour per class, and an `ignore_index` that is not a class's index."""
        assert len(set(dataset.classes)) == len(dataset.classes) > 1
        assert len(dataset.palette) == len(dataset.classes), "give one colour for each class"
        assert all(len(colour) == 3 and all(0 <= level <= 255 for level in colour) for colour in dataset.palette)
        assert len(dataset.classes) <= dataset.ignore_index <= 255, "make ignore_index no class's, like 255"
        assert len(set(dataset.splits())) == len(dataset.splits()) > 0
        assert not any("+" in name for name in dataset.splits()), "a + joins splits"

    def test_its_spec_opens_it_again(self, dataset: Dataset) -> None:
        """Fix: an entry point of the group `nasseg.datasets`; a `spec` with all options and no relative path."""
        name = dataset.spec.partition(":")[0]
        assert name in datasets(), how_to_register(type(dataset), ENTRY_POINTS, name)
        again = open_dataset(dataset.spec)
        for field in ("name", "spec", "classes", "palette", "ignore_index"):
            assert getattr(again, field) == getattr(dataset, field), field
        assert again.splits() == dataset.splits()

    def test_opened_again_it_is_the_same(self, dataset: Dataset) -> None:
        """Fix: no randomness but from a seed of the sample's own, no loop over a set or an unsorted folder."""
        splits = [dataset.split(name) for name in dataset.splits()]
        here = state(splits)
        assert state(splits) == here
        assert opened_state(dataset.spec) == here
        assert elsewhere(opened_state, dataset.spec) == here, "another process sees another data set"

    def test_fingerprints_tell_splits_apart(self, dataset: Dataset) -> None:
        """Fix: a fingerprint from all that the content depends on."""
        by_content = {digest(some_of(split)): split.fingerprint for split in map(dataset.split, dataset.splits())}
        assert len(set(by_content.values())) == len(by_content)

    def test_samples_are_what_training_takes(self, dataset: Dataset) -> None:
        """Fix: `image` uint8 (3, H, W) in RGB, `mask` uint8 (H, W) of class indices and `ignore_index`."""
        for split in map(dataset.split, dataset.splits()):
            samples = some_of(split)
            assert len({sample.name for sample in samples}) == len(samples), "give each sample a name of its own"
            for name, image, mask in samples:
                assert (image.dtype, mask.dtype) == (torch.uint8, torch.uint8), name
                assert (image.ndim, len(image)) == (3, 3), name
                assert mask.shape == image.shape[1:], name
                used = set(mask.flatten().tolist()) - {dataset.ignore_index}
                undeclared = sorted(index for index in used if index >= len(dataset.classes))
                assert not undeclared, f"{name} holds the classes {undeclared}; declare them, or give ignore_index"

    def test_a_split_is_described_as_its_data_set_is(self, dataset: Dataset) -> None:
        """Fix: `name`, `classes` and `ignore_index` of the split."""
        for name in dataset.splits():
            split = dataset.split(name)
            assert (split.name, split.classes) == (name, dataset.classes)
            assert split.ignore_index == dataset.ignore_index
            split.check()

    def test_sizes_and_names_are_those_of_the_samples(self, dataset: Dataset) -> None:
        """Fix: `size` and `sample_name` of the split, which tell without reading a sample what is in it."""
        for split in map(dataset.split, dataset.splits()):
            for index in {0, len(split) // 2, len(split) - 1}:
                sample = split[index]
                assert (split.size(index), split.sample_name(index)) == (tuple(sample.mask.shape), sample.name)

    def test_a_plus_joins_splits(self, dataset: Dataset) -> None:
        """Fix: `union` of several names: the samples of each in turn, none of them twice."""
        first, *rest = dataset.splits()
        assert len(dataset.split(f"{first}+{first}")) == len(dataset.split(first)), "a sample comes twice"
        for other in rest:
            union, parts = dataset.split(f"{first}+{other}"), [dataset.split(name) for name in (first, other)]
            names = [[split[index].name for index in range(len(split))] for split in parts]
            assert [union[index].name for index in range(len(union))] == list(dict.fromkeys(names[0] + names[1]))
            assert union.fingerprint != parts[0].fingerprint or len(union) == len(parts[0])

    def test_an_unknown_split_names_the_known(self, dataset: Dataset) -> None:
        """Fix: leave `split` as it is, and implement `union`."""
        with pytest.raises(DataError) as error:
            dataset.split("not-a-split")
        assert all(name in str(error.value) for name in dataset.splits())

    def test_workers_can_be_given_a_split(self, dataset: Dataset) -> None:
        """Fix: no open file, lock or lambda in a split, which goes to other processes."""
        split = dataset.split(dataset.splits()[0])
        again: Split = pickle.loads(pickle.dumps(split))
        assert digest(some_of(again)) == digest(some_of(split))

    def test_it_gives_batches(self, dataset: Dataset) -> None:
        """Fix: as for samples."""
        split = dataset.split(dataset.splits()[0])
        batch = next(training_batches(split, Augment(crop=(32, 48)), batch_size=2, seed=0))
        assert batch.inputs["image"].shape == (2, 3, 32, 48)
        assert batch.masks.shape == (2, 32, 48)
        assert batch.inputs["image"].isfinite().all()
