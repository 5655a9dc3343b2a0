from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasseg.data import DataError, Sample, Split, drawn_splits, open_dataset
from nasseg.data.drawn import Drawing

STREETS = open_dataset("streets:size=32x48,train=20,val=2,test=2")


class Frames(Split):
    """Frames of drives, as names alone, which must not be read."""

    name, classes, ignore_index = "train", ("x", "y"), 255

    def __init__(self, drives: list[int]) -> None:
        self.names = [f"train/drive{d}_{frame:04d}" for d, frames in enumerate(drives) for frame in range(frames)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        raise AssertionError("read")

    def sample_name(self, index: int) -> str:
        return self.names[index]

    @property
    def fingerprint(self) -> str:
        return str(len(self))


def names(split: Split) -> list[str]:
    return [split.sample_name(index) for index in range(len(split))]


def test_a_share_and_its_rest_are_all_and_share_nothing() -> None:
    val, train = STREETS.split("train@20%"), STREETS.split("train@-20%")
    assert (len(val), len(train)) == (4, 16)
    assert sorted(names(val) + names(train)) == names(STREETS.split("train"))
    assert (val.name, train.name) == ("train@20%", "train@-20%")


def test_another_seed_draws_others_and_the_fingerprint_tells() -> None:
    first, second = STREETS.split("train@20%"), STREETS.split("train@20%,seed=1")
    assert names(first) != names(second)
    assert len({part.fingerprint for part in (first, second, STREETS.split("train"), STREETS.split("train@-20%"))}) == 4
    assert names(open_dataset(STREETS.spec).split("train@20%")) == names(first)


def test_splits_are_joined_before_a_share_is_drawn() -> None:
    both = names(STREETS.split("train+val@50%")) + names(STREETS.split("train+val@-50%"))
    assert sorted(both) == sorted(names(STREETS.split("train+val")))


@given(st.lists(st.integers(1, 30), min_size=2, max_size=12), st.integers(0, 99), st.integers(5, 60))
def test_frames_of_one_drive_stay_together(drives: list[int], seed: int, percent: int) -> None:
    split = Frames(drives)
    try:
        val, rest = (names(Drawing.parse(f"{sign}{percent}%,seed={seed},by=_").of(split)) for sign in ("", "-"))
    except DataError:
        return
    assert Counter(val) + Counter(rest) == Counter(split.names)
    assert {name.rpartition("_")[0] for name in val}.isdisjoint({name.rpartition("_")[0] for name in rest})


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        ("train", "20%", ("train@-20%", "train@20%")),
        ("train+val", "12.5%,seed=3,by=_", ("train+val@-12.5%,seed=3,by=_", "train+val@12.5%,seed=3,by=_")),
        ("train", "val", ("train", "val")),
        ("train@-20%", "train@20%", ("train@-20%", "train@20%")),
    ],
)
def test_a_share_as_the_validation_split_names_both_parts(train: str, val: str, expected: tuple[str, str]) -> None:
    assert drawn_splits(train, val) == expected


@pytest.mark.parametrize("text", ["train@", "train@0%", "train@100%", "train@a", "train@20", "train@20%,sed=1"])
def test_a_share_that_is_none(text: str) -> None:
    if text == "train@":
        assert len(STREETS.split(text)) == 20
        return
    with pytest.raises(DataError, match="must be a share, like 20%"):
        STREETS.split(text)


def test_too_few_to_draw_from() -> None:
    with pytest.raises(DataError, match="1 groups of 9 images, too few to draw 20% from"):
        Drawing.parse("20%,by=_").of(Frames([9]))
