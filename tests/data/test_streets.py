import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasseg.data import DataError, Streets, open_dataset
from nasseg.data.street_scene import BUS_LANE, CLASSES, KIOSK, PARKING, PAVEMENT, SKY, VAN, Scene, draw


def test_options() -> None:
    dataset = open_dataset("streets:size=64x96,train=3,val=2,test=1,seed=5")
    assert [len(dataset.split(name)) for name in dataset.splits()] == [3, 2, 1]
    assert len(dataset.split("train+val")) == 5
    sample = dataset.split("train")[0]
    assert sample.image.shape == (3, 64, 96)
    assert sample.mask.shape == (64, 96)
    assert sample.image.dtype == sample.mask.dtype == torch.uint8


@pytest.mark.parametrize("spec", ["streets", "streets:size=64x96,train=3", "streets:seed=2"])
def test_spec_opens_the_same_data_set(spec: str) -> None:
    dataset = open_dataset(spec)
    assert dataset.spec == spec
    assert open_dataset(dataset.spec).split("val").fingerprint == dataset.split("val").fingerprint


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("size=640", "size is 640, but must be HEIGHTxWIDTH"),
        ("size=8x8", "each from 32 to 4096"),
        ("train=0", "train"),
        ("seed=x", "seed"),
        ("colour=red", "its options are size, train, val, test, seed"),
    ],
)
def test_wrong_options(options: str, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        open_dataset(f"streets:{options}")


def test_scenes_differ_by_split_index_and_seed() -> None:
    images = [
        dataset.split(name)[index].image.float()
        for dataset in (Streets(), open_dataset("streets:seed=1"))
        for name in dataset.splits()
        for index in (0, 1)
    ]
    assert min((a - b).abs().mean() for i, a in enumerate(images) for b in images[:i]) > 5


def test_fingerprint_depends_on_what_the_scenes_depend_on() -> None:
    specs = ("streets", "streets:seed=1", "streets:size=64x64", "streets:train=3")
    prints = [open_dataset(spec).split("train").fingerprint for spec in specs]
    assert len({*prints, Streets().split("val").fingerprint}) == 5


@settings(max_examples=30, deadline=None)
@given(st.integers(32, 200), st.integers(32, 200), st.integers(0, 2**32))
def test_any_size_is_filled_with_classes(height: int, width: int, seed: int) -> None:
    image, mask = draw(height, width, np.random.default_rng(seed))
    assert image.shape == (height, width, 3)
    assert mask.shape == (height, width)
    assert mask.max() < len(CLASSES)
    assert SKY not in mask[round(height * 0.5) + 1 :]


def test_every_class_occurs_often_enough_to_be_learned() -> None:
    split = Streets().split("train")
    counts = sum(torch.bincount(split[i].mask.flatten().long(), minlength=len(CLASSES)) for i in range(20))
    assert counts.min() / counts.sum() > 0.005


def test_far_things_decide_the_pairs_that_look_alike() -> None:
    seen = set()
    for seed in range(40):
        scene = Scene(160, 320, np.random.default_rng(seed))
        centre = round(scene.vanishing_x)
        for side, half in enumerate((scene.mask[:, : centre - 4], scene.mask[:, centre + 4 :])):
            assert (PAVEMENT in half) == scene.red_roofs[1 - side]
            assert (PARKING in half) != scene.red_roofs[1 - side]
            assert (VAN if scene.red_signs[1 - side] else KIOSK) not in half
        assert (BUS_LANE in scene.mask) != scene.evening
        seen |= set(np.unique(scene.mask))
    assert {PAVEMENT, PARKING, KIOSK, VAN, BUS_LANE} <= seen
