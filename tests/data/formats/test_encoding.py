"""Masks of every kind, as class indices."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nasseg.data import DataError
from nasseg.data.formats import Description, Encoding, UnknownValueError
from nasseg.data.formats.description import Colour, voc_colours
from nasseg.data.formats.images import read_image, stored_size, upright_size

RGB = {"classes": ["x", "y", "z"], "palette": [[0, 0, 0], [255, 0, 0], [0, 255, 0]]}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[list[int]]]:
    """Write a mask, and read it by a description."""

    def read(
        picture: Image.Image, description: dict[str, object], ending: str = "png", **options: object
    ) -> list[list[int]]:
        path = tmp_path / f"mask.{ending}"
        picture.save(path, **options)
        return Encoding(Description.model_validate(description)).read([path]).tolist()

    return read


def grey(values: object, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.array(values, dtype))


def test_indices_that_are_no_class_indices_are_mapped(read: Callable[..., list[list[int]]]) -> None:
    description = {"classes": {"road": 7, "vehicle": [26, 27]}, "ignore": "rest"}
    assert read(grey([[7, 26, 27, 0]]), description) == [[0, 1, 1, 255]]


def test_zero_may_be_void_and_255_a_class(read: Callable[..., list[list[int]]]) -> None:
    assert read(grey([[0, 1, 2]]), {"classes": {"x": 1, "y": 2}, "ignore": [0]}) == [[255, 0, 1]]
    assert read(grey([[0, 255]]), {"classes": {"background": 0, "object": 255}}) == [[0, 1]]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits(ending: str, read: Callable[..., list[list[int]]]) -> None:
    description = {"classes": {"x": 0, "y": 1000, "z": 65535}, "ignore": [300]}
    assert read(grey([[0, 1000, 65535, 300]], np.uint16), description, ending) == [[0, 1, 2, 255]]


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "webp", "gif"])
def test_colours_in_every_lossless_format(ending: str, read: Callable[..., list[list[int]]]) -> None:
    colours = grey([[[0, 0, 0], [255, 0, 0]], [[0, 255, 0], [255, 0, 0]]])
    options = {"lossless": True} if ending == "webp" else {}
    description = RGB | ({"masks": "colour"} if ending == "gif" else {})
    assert read(colours, description, ending, **options) == [[0, 1], [2, 1]]


def test_several_colours_are_one_class_and_some_are_ignored(read: Callable[..., list[list[int]]]) -> None:
    description = {"classes": {"x": [[1, 1, 1], [2, 2, 2]], "y": [[3, 3, 3]]}, "ignore": [[0, 0, 0]]}
    assert read(grey([[[1, 1, 1], [2, 2, 2], [3, 3, 3], [0, 0, 0]]]), description) == [[0, 0, 1, 255]]


def test_transparency_counts_for_nothing(read: Callable[..., list[list[int]]]) -> None:
    assert read(grey([[[255, 0, 0, 0], [0, 255, 0, 255]]]), RGB) == [[1, 2]]


def test_a_palettes_indices_count_unless_its_colours_are_to(read: Callable[..., list[list[int]]]) -> None:
    picture = grey([[0, 1, 2]])
    picture.putpalette([0, 255, 0, 0, 0, 0, 255, 0, 0])
    assert read(picture, RGB) == [[0, 1, 2]]
    assert read(picture, RGB | {"masks": "colour"}) == [[2, 0, 1]]


def test_indices_in_three_equal_channels(read: Callable[..., list[list[int]]]) -> None:
    picture = grey([[[0, 0, 0], [1, 1, 1], [2, 2, 2]]])
    assert read(picture, RGB | {"masks": "index"}) == [[0, 1, 2]]
    with pytest.raises(DataError, match='"masks": "index"; write "colour"'):
        read(grey([[[0, 1, 2]]]), RGB | {"masks": "index"})


def test_files_of_instances_make_one_mask(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"]
    for place, path in enumerate(paths[:2]):
        grey([[255 * (place == 0), 0, 255 * (place == 1)]]).save(path)
    grey([[0, 0]]).save(paths[2])
    encoding = Encoding(Description(classes=("background", "object")))
    assert encoding.read(paths[:2], is_instances=True).tolist() == [[1, 0, 1]]
    assert encoding.read(paths[:1], is_instances=True).tolist() == [[1, 0, 0]]
    with pytest.raises(DataError, match=r"c\.png has another size than a\.png"):
        encoding.read(paths, is_instances=True)


@pytest.mark.parametrize(
    ("picture", "description", "message"),
    [
        (grey([[0, 9]]), {"classes": ["x", "y"]}, "holds class index 9, but must hold 0 to 1, or 255 to ignore"),
        (grey([[5, 0]]), {"classes": {"x": 1, "y": 5}}, "holds class index 0, but must hold one of 1, 5, 255"),
        (grey([[[9, 8, 7]]]), RGB, "a colour that is no class's: \\[9, 8, 7\\]"),
        (grey([[[9, 8, 7]]]), {"classes": ["x", "y"]}, "no class has a colour of its own; give dataset.json a palette"),
        (grey([[0]]), RGB | {"masks": "colour"}, 'has no colours, but dataset.json says "masks": "colour"'),
        (grey([[0.5]], np.float32), {"classes": ["x", "y"]}, "floating-point"),
        (
            grey([[70000]], np.int32),
            {"classes": ["x", "y"]},
            "holds 70000 to 70000, but must hold indices of 0 to 65535",
        ),
    ],
)
def test_masks_that_stand_for_nothing(
    picture: Image.Image, description: dict[str, object], message: str, read: Callable[..., list[list[int]]]
) -> None:
    with pytest.raises(DataError, match=message):
        read(picture, description, "tif")


def test_a_jpeg_is_no_mask(read: Callable[..., list[list[int]]]) -> None:
    with pytest.raises(DataError, match="is a JPEG, whose compression mixes neighbouring classes; make it anew as PNG"):
        read(grey([[0, 1]]), {"classes": ["x", "y"]}, "jpg")


def test_the_error_has_the_values(read: Callable[..., list[list[int]]]) -> None:
    with pytest.raises(UnknownValueError) as error:
        read(grey([[4, 9, 9, 0]]), {"classes": ["x", "y"]})
    assert error.value.values == (9, 4)


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=255, unique=True), st.data())
def test_any_palette_is_told_apart(
    tmp_path_factory: pytest.TempPathFactory, palette: list[Colour], data: st.DataObject
) -> None:
    pixels = data.draw(st.lists(st.integers(0, len(palette) - 1), min_size=1, max_size=20))
    path = tmp_path_factory.getbasetemp() / "any.bmp"
    grey([[palette[pixel] for pixel in pixels]]).save(path)
    description = Description(classes=tuple(f"c{i}" for i in range(len(palette))), palette=tuple(palette))
    encoding = pickle.loads(pickle.dumps(Encoding(description)))
    assert encoding.read([path]).tolist() == [pixels]
    other = data.draw(st.tuples(*[st.integers(0, 255)] * 3).filter(lambda colour: colour not in palette))
    grey([[other]]).save(path)
    with pytest.raises(UnknownValueError) as error:
        encoding.read([path])
    assert error.value.values == (other,)


def test_voc_colours() -> None:
    assert voc_colours(4) == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert (voc_colours(21)[20], len(set(voc_colours(255)))) == ((0, 64, 128), 255)


def test_sixteen_bit_images_keep_their_levels(tmp_path: Path) -> None:
    for ending in ("png", "tif"):
        grey([[0, 257, 32896, 65535]], np.uint16).save(tmp_path / f"a.{ending}")
        assert read_image(tmp_path / f"a.{ending}")[:, 0].tolist() == [[0, 1, 128, 255]] * 3


@pytest.mark.parametrize("ending", ["webp", "tif", "bmp", "png", "gif"])
def test_images_in_other_formats(ending: str, tmp_path: Path) -> None:
    picture = grey([[[255, 0, 0], [0, 0, 255]]])
    picture.save(tmp_path / f"a.{ending}", **({"lossless": True} if ending == "webp" else {}))
    assert read_image(tmp_path / f"a.{ending}").tolist() == [[[255, 0]], [[0, 0]], [[0, 255]]]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_images_of_other_modes_are_rgb(mode: str, tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), "white").convert(mode).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    assert (image.shape, image.dtype, set(image.flatten().tolist())) == ((3, 2, 3), torch.uint8, {255})


def test_a_photo_is_turned_as_the_camera_was_held(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    grey([[[255] * 3, [0] * 3, [0] * 3]]).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png")[0].tolist() == [[255], [0], [0]]


@pytest.mark.parametrize("ending", ["jpg", "tif", "png", "webp"])
@pytest.mark.parametrize("orientation", range(9))
def test_the_size_of_a_photo_is_known_by_its_header(orientation: int, ending: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    Image.new("RGB", (5, 3)).save(path, exif=exif)
    upright = (5, 3) if orientation > 4 else (3, 5)
    assert upright_size(path) == tuple(read_image(path).shape[1:]) == upright
    assert stored_size(path) == (3, 5)
