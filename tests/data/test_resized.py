import pytest
import torch

from nasseg.data import open_dataset
from nasseg.data.resized import Resized, scaled

SPLIT = open_dataset("streets:size=32x48,train=2,val=2,test=2").split("val")


def test_half_of_a_size_is_the_mean_of_the_pixels_around() -> None:
    """Antialiased bilinear resizing to a half weighs 4x4 pixels by [1, 3, 3, 1] / 8 along each axis."""
    sample, small = SPLIT[1], Resized(SPLIT, 0.5)[1]
    weights = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = (weights[:, None] * weights).expand(3, 1, 4, 4)
    inside = torch.conv2d(sample.image[None].float(), kernel, stride=2, padding=1, groups=3)[0, :, 1:-1, 1:-1]
    assert small.image.dtype == torch.uint8
    assert (small.image[:, 1:-1, 1:-1].float() - inside).abs().max() <= 0.51


def test_masks_keep_their_classes() -> None:
    sample, small = SPLIT[0], Resized(SPLIT, 1 / 3)[0]
    assert (small.name, small.mask.shape, small.mask.dtype) == (sample.name, (11, 16), torch.uint8)
    thirds = Resized(SPLIT, 2.0)[0].mask
    assert torch.equal(thirds, sample.mask.repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_at_its_own_size_it_is_the_split() -> None:
    own, resized = SPLIT[0], Resized(SPLIT, 1)[0]
    assert torch.equal(own.image, resized.image)
    assert torch.equal(own.mask, resized.mask)


def test_the_rest_is_the_splits_own() -> None:
    half = Resized(SPLIT, 0.5)
    assert (len(half), half.name, half.classes, half.ignore_index) == (2, "val", SPLIT.classes, 255)
    assert len({half.fingerprint, Resized(SPLIT, 0.25).fingerprint, SPLIT.fingerprint}) == 3
    assert half.fingerprint == Resized(SPLIT, 0.5).fingerprint
    half.check()


@pytest.mark.parametrize(("size", "factor", "expected"), [((360, 480), 0.375, (135, 180)), ((3, 200), 0.1, (1, 20))])
def test_sizes_are_whole_pixels(size: tuple[int, int], factor: float, expected: tuple[int, int]) -> None:
    assert scaled(size, factor) == expected
