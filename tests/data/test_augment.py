import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia import enhance
from pydantic import ValidationError

from nasseg.data import Augment, denormalise, normalise

IMAGES = torch.randint(256, (3, 3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LEVEL = 1 / 255 / 0.224
"""A grey level of a normalised image: views are scaled in 8 bits."""
MASKS = torch.randint(5, (3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_normalise_takes_out_imagenets_mean_and_deviation() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 1, 1)
    expected = torch.tensor([[-0.485, -0.456, -0.406], [0.515, 0.544, 0.594]]) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(normalise(images)[..., 0, 0], expected)


def test_identity_is_exactly_the_normalised_image() -> None:
    for augment in (Augment(), Augment(crop=(20, 30))):
        images, masks = augment(IMAGES, MASKS, seeded())
        assert torch.equal(images, normalise(IMAGES))
        assert torch.equal(masks, MASKS.long())


def test_crop_is_a_window_of_the_image() -> None:
    images, masks = Augment(crop=(7, 9))(IMAGES, MASKS, seeded())
    windows = normalise(IMAGES).unfold(2, 7, 1).unfold(3, 9, 1)
    mask_windows = MASKS.unfold(1, 7, 1).unfold(2, 9, 1)
    for i in range(3):
        same = (windows[i] == images[i][:, None, None]).all(dim=(0, 3, 4))
        assert same.sum() == 1
        assert torch.equal(mask_windows[i][same][0].long(), masks[i])


def test_flip_mirrors_about_half_of_the_images() -> None:
    images, masks = Augment(flip=True)(IMAGES[:1].expand(200, -1, -1, -1), MASKS[:1].expand(200, -1, -1), seeded())
    mirrored = (images == normalise(IMAGES[:1]).flip(-1)).all(dim=(1, 2, 3))
    assert torch.equal(mirrored, (masks == MASKS[:1].flip(-1)).all(dim=(1, 2)))
    assert 70 < mirrored.sum() < 130
    assert torch.equal(images[~mirrored], normalise(IMAGES[:1]).expand(int((~mirrored).sum()), -1, -1, -1))


def test_outside_the_image_is_mean_colour_and_ignored() -> None:
    images, masks = Augment(crop=(24, 40))(IMAGES, MASKS, seeded(), ignore_index=11)
    for image, mask, original in zip(images, masks, IMAGES, strict=True):
        assert (mask == 11).sum() == 24 * 40 - 20 * 30
        assert torch.equal(image[:, mask == 11], torch.zeros(3, 360))
        assert torch.equal(image[:, mask != 11], normalise(original).flatten(1))


def test_images_of_many_sizes_become_one_batch() -> None:
    images, masks = Augment()([IMAGES[0], IMAGES[1, :, :10]], [MASKS[0], MASKS[1, :10]], seeded())
    assert images.shape == (2, 3, 20, 30)
    assert (masks[1] == 255).sum() == 300
    assert torch.equal(images[1][:, masks[1] != 255], normalise(IMAGES[1, :, :10]).flatten(1))


def test_scale_two_doubles() -> None:
    blocks = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    blocks[..., 4:] = 255
    images, masks = Augment(scale=(2.0, 2.0), crop=(16, 16))(blocks, blocks[:, 0] // 255, seeded())
    expected = torch.nn.functional.interpolate(normalise(blocks), (16, 16), mode="bilinear")
    torch.testing.assert_close(images, expected, atol=LEVEL, rtol=0)
    assert torch.equal(masks[0], (torch.arange(16) >= 8).long().expand(16, 16))


def test_colour_changes_the_image_alone() -> None:
    images, masks = Augment(colour=0.5)(IMAGES, MASKS, seeded())
    assert torch.equal(masks, MASKS.long())
    assert (images - normalise(IMAGES)).abs().mean() > 0.05
    black, white = (normalise(torch.full((3, 1, 1), level, dtype=torch.uint8)) for level in (0, 255))
    assert (images >= black - 1e-5).all()
    assert (images <= white + 1e-5).all()


def test_colour_is_as_in_kornia() -> None:
    factors = 1 + 0.5 * (2 * torch.rand(3, 7, generator=seeded())[:, 4:] - 1)
    brightness, contrast, saturation = factors.T
    expected = enhance.adjust_brightness_accumulative(IMAGES / 255, brightness)
    expected = enhance.adjust_contrast_with_mean_subtraction(expected, contrast)
    expected = enhance.adjust_saturation_with_gray_subtraction(expected, saturation)
    images, _ = Augment(colour=0.5)(IMAGES, MASKS, seeded())
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    torch.testing.assert_close(images, (expected - mean) / deviation, atol=1e-5, rtol=0)


def test_what_is_outside_does_not_count_for_contrast() -> None:
    whole, _ = Augment(colour=0.5)(IMAGES, MASKS, seeded())
    padded, masks = Augment(crop=(24, 40), colour=0.5)(IMAGES, MASKS, seeded(), ignore_index=11)
    for image, mask, expected in zip(padded, masks, whole, strict=True):
        torch.testing.assert_close(image[:, mask != 11], expected.flatten(1), atol=1e-5, rtol=0)
        assert torch.equal(image[:, mask == 11], torch.zeros(3, 360))


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.3])
def test_image_and_mask_keep_together(factor: float) -> None:
    """A mask drawn into the image is in the same place of both views."""
    mask = torch.zeros(20, 30, dtype=torch.uint8)
    mask[6:15, 8:22] = 1
    image = (mask * 255).expand(3, -1, -1)
    augment = Augment(crop=(40, 50), scale=(factor, factor), flip=True)
    images, masks = augment([image] * 9, [mask] * 9, seeded())
    drawn = denormalise(images)[:, 0] / 255
    known = masks != 255
    assert ((drawn - masks).abs()[known] <= 0.75).all()
    assert ((drawn > 0.5) == (masks == 1))[known].float().mean() > 0.9
    assert (images[~known[:, None].expand_as(images)] == 0).all()


def test_a_view_does_not_depend_on_the_others_of_its_batch() -> None:
    augment = Augment(crop=(17, 33), scale=(0.5, 2), flip=True, colour=0.4)
    images, masks = augment(IMAGES, MASKS, seeded())
    for number in range(3):
        image, mask = augment(IMAGES[number : number + 1], MASKS[number : number + 1], seeded(), part=(number, 3))
        assert torch.equal(image[0], images[number])
        assert torch.equal(mask[0], masks[number])


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.floats(0.3, 1.5), st.floats(1.5, 3)),
    st.booleans(),
    st.sampled_from([0.0, 0.4]),
    st.integers(0, 1000),
)
def test_any_view_is_reproducible_and_invents_no_class(
    crop: tuple[int, int], scale: tuple[float, float], flip: bool, colour: float, seed: int
) -> None:
    augment = Augment(crop=crop, scale=scale, flip=flip, colour=colour)
    masks = MASKS * 50
    before = torch.get_rng_state()
    first, second = (augment(IMAGES, masks, seeded(seed)) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert first[0].shape == (3, 3, *crop)
    assert first[1].shape == (3, *crop)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert set(first[1].unique().tolist()) <= {0, 50, 100, 150, 200, 255}


def test_wrong_settings() -> None:
    for wrong in ({"scale": (2.0, 0.5)}, {"scale": (0.0, 1.0)}, {"crop": (0, 5)}, {"colour": 1.0}, {"blur": 1}):
        with pytest.raises(ValidationError):
            Augment(**wrong)
