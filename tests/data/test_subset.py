import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasseg.data import DataError, Sample, Split, open_dataset
from nasseg.data.subset import Subset, halves

SPLIT = open_dataset("streets:size=32x48,train=4,val=2,test=2").split("train")


class Numbers(Split):
    """Samples whose only content is their index, as a name."""

    name, classes, ignore_index = "numbers", ("x",), 255

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return Sample(str(index), torch.empty(0), torch.empty(0))

    @property
    def fingerprint(self) -> str:
        return str(self.count)


def names(split: Split) -> list[str]:
    return [split[index].name for index in range(len(split))]


def test_a_subset_has_the_samples_that_it_was_given() -> None:
    subset = Subset(SPLIT, [2, 0])
    assert names(subset) == [SPLIT[2].name, SPLIT[0].name]
    assert torch.equal(subset[0].image, SPLIT[2].image)
    assert (subset.name, subset.classes, subset.ignore_index) == (SPLIT.name, SPLIT.classes, SPLIT.ignore_index)
    assert (subset.sample_name(0), subset.size(0), subset.is_computed) == ("train/00002", (32, 48), True)


def test_fingerprints_tell_subsets_apart() -> None:
    subsets = [Subset(SPLIT, indices) for indices in ([0, 1], [1, 0], [0], [2, 3])]
    assert len({SPLIT.fingerprint, *(subset.fingerprint for subset in subsets)}) == 5
    assert Subset(SPLIT, [0, 1]).fingerprint == subsets[0].fingerprint


@given(st.integers(2, 300), st.integers(0, 2**32))
def test_halves_share_nothing_and_are_all(count: int, seed: int) -> None:
    first, second = halves(Numbers(count), seed)
    assert sorted(map(int, (*names(first), *names(second)))) == list(range(count))
    assert len(first) - len(second) == count % 2
    again = halves(Numbers(count), seed)
    assert (again[0].indices, again[1].indices) == (first.indices, second.indices)


def test_another_seed_draws_other_halves() -> None:
    assert halves(Numbers(100), 0)[0].indices != halves(Numbers(100), 1)[0].indices


def test_one_image_cannot_be_halved() -> None:
    with pytest.raises(DataError, match="'numbers' has 1 image, but must have 2"):
        halves(Numbers(1), 0)
