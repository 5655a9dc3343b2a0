from collections import Counter
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasseg.data import Augment, FolderDataset, Pace, evaluation_batches, normalise, open_dataset, training_batches
from nasseg.data import batches as batches_module
from nasseg.data.batches import seeded, shuffled

STREETS = open_dataset("streets:size=32x32,train=5,val=3")
AUGMENT = Augment(crop=(16, 24), scale=(0.5, 2.0), flip=True, colour=0.3)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 5), st.integers(0, 9))
def test_every_epoch_holds_every_item_once(items: int, batch_size: int, seed: int, start: int) -> None:
    batches = list(islice(shuffled(items, batch_size, seed), 30))
    assert batches[start:] == list(islice(shuffled(items, batch_size, seed, start), 30 - start))
    stream = [index for batch in batches for index in batch]
    for epoch in range(len(stream) // items):
        assert sorted(stream[epoch * items : (epoch + 1) * items]) == list(range(items))


def test_orders_differ_by_epoch_and_seed() -> None:
    assert len({tuple(next(shuffled(50, 50, seed, epoch))) for seed in range(3) for epoch in range(3)}) == 9


def test_streams_depend_on_all_numbers() -> None:
    draws = {torch.rand(1, generator=seeded(*numbers)).item() for numbers in ((0,), (0, 1), (1, 0), (0, 1, 1), (1, 1))}
    assert len(draws) == 5


@pytest.mark.parametrize("readers", [0, 1, 3])
def test_a_resumed_run_sees_the_same_batches(readers: int) -> None:
    split = STREETS.split("train")
    before = torch.get_rng_state()
    whole = list(islice(training_batches(split, AUGMENT, 3, seed=7), 4))
    rest = list(islice(training_batches(split, AUGMENT, 3, seed=7, start_step=2, readers=readers), 2))
    assert torch.equal(before, torch.get_rng_state())
    for expected, batch in zip(whole[2:], rest, strict=True):
        assert torch.equal(expected.inputs["image"], batch.inputs["image"])
        assert torch.equal(expected.masks, batch.masks)
    assert not torch.equal(whole[0].inputs["image"], whole[1].inputs["image"])


def test_a_split_smaller_than_a_batch_fills_it() -> None:
    batch = next(training_batches(STREETS.split("val"), Augment(), 7, seed=0))
    assert batch.inputs["image"].shape == (7, 3, 32, 32)
    assert batch.masks.shape == (7, 32, 32)
    counts = Counter(image.sum().item() for image in batch.inputs["image"])
    assert sorted(counts.values()) == [2, 2, 3]


def test_sizes_that_differ_are_padded_and_ignored(folder: Path) -> None:
    split = FolderDataset(folder).split("train+val")
    batch = next(training_batches(split, Augment(), 3, seed=0))
    assert batch.inputs["image"].shape == (3, 3, 10, 12)
    ignored = sum((split[i].mask == 255).sum() for i in range(3)) + 2 * 24 + 60
    assert (batch.masks == 255).sum() == ignored


def test_evaluation_is_in_order_and_joins_only_equal_sizes(folder: Path) -> None:
    split = FolderDataset(folder).split("train+val")
    batches = list(evaluation_batches(split, 8))
    assert [names for _, names in batches] == [("train/a", "train/b"), ("val/c",)]
    for batch, names in batches:
        samples = [sample for sample in split if sample.name in names]
        assert torch.equal(batch.inputs["image"], normalise(torch.stack([sample.image for sample in samples])))
        assert torch.equal(batch.masks, torch.stack([sample.mask for sample in samples]).long())


def test_evaluation_batches_are_full() -> None:
    assert [len(names) for _, names in evaluation_batches(STREETS.split("train"), 2)] == [2, 2, 1]


@pytest.mark.parametrize("readers", [0, 2])
def test_parts_are_those_of_the_whole_batch(readers: int) -> None:
    split = STREETS.split("train")
    whole = next(training_batches(split, AUGMENT, 4, seed=7, start_step=3))
    halves = [next(training_batches(split, AUGMENT, 4, 7, 3, readers=readers, part=(part, 2))) for part in range(2)]
    assert torch.equal(torch.cat([half.inputs["image"] for half in halves]), whole.inputs["image"])
    assert torch.equal(torch.cat([half.masks for half in halves]), whole.masks)
    with pytest.raises(ValueError, match="batch_size is 4, but must be a multiple of the 3 workers"):
        next(training_batches(split, AUGMENT, 4, 7, part=(0, 3)))


def test_readers_read_the_same_for_evaluation() -> None:
    split = STREETS.split("train")
    for one, ahead in zip(evaluation_batches(split, 2), evaluation_batches(split, 2, readers=2), strict=True):
        assert torch.equal(one[0].inputs["image"], ahead[0].inputs["image"])
        assert one[1] == ahead[1]


def test_the_pace_counts_what_was_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count()
    monkeypatch.setattr(batches_module, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    pace = Pace()
    assert pace.images_per_s == 0
    taken = training_batches(STREETS.split("train"), AUGMENT, 3, seed=7, pace=pace)
    for _ in range(2):
        next(taken)
    # The clock is read as a batch is asked for, begun, prepared and there: 3 of its seconds are waited, 1 is work.
    assert (pace.waited_s, pace.images_per_s) == (6, 3)
