"""Samples that are kept are read once, and are the split's own."""

import torch

from nasseg.data import open_dataset
from nasseg.data.dataset import Sample
from nasseg.data.in_memory import InMemory
from nasseg.data.resized import Resized

DATA = "streets:size=32x48,train=4,val=2,test=2"


class Counted(Resized):
    """Half-size samples, with the indices that were read."""

    def __init__(self) -> None:
        super().__init__(open_dataset(DATA).split("train"), 0.5)
        self.read: list[int] = []

    def __getitem__(self, index: int) -> Sample:
        self.read.append(index)
        return super().__getitem__(index)


def test_every_sample_is_read_once() -> None:
    counted, plain = Counted(), Counted()
    kept = InMemory(counted)
    assert (len(kept), kept.name, kept.classes, kept.ignore_index) == (4, "train", plain.classes, plain.ignore_index)
    assert kept.fingerprint == plain.fingerprint
    for index in (0, 1, 0, 3, 1, 0):
        sample, expected = kept[index], plain[index]
        assert sample.name == expected.name
        assert torch.equal(sample.image, expected.image)
        assert torch.equal(sample.mask, expected.mask)
    assert counted.read == [0, 1, 3]


def test_what_does_not_fit_is_read_each_time() -> None:
    counted = Counted()
    first = counted[0]
    counted.read.clear()
    kept = InMemory(counted, limit_bytes=2 * (first.image.nbytes + first.mask.nbytes))
    for index in (0, 1, 2, 0, 1, 2):
        assert kept[index].name == counted.__class__()[index].name
    assert counted.read == [0, 1, 2, 2]
