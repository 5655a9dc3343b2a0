"""Broken data sets: what is found, and what to write instead."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nasseg.data import DataError, FolderDataset, open_dataset
from nasseg.data.checking import Finding, findings, mistakes, review, survey

CLASSES = ["sky", "road", "car"]
PALETTE = [[70, 130, 180], [128, 64, 128], [0, 0, 142]]
SHAPE = (24, 32)


def write(root: Path, draw: Callable[[int], object], ending: str = "png", **description: object) -> FolderDataset:
    """Write 4 images to train on and 2 to score on, with the mask `draw(i)` for each."""
    rng = np.random.default_rng(3)
    for i in range(6):
        split = "train" if i < 4 else "val"
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(256, size=(6, 8, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(pixels).save(root / "images" / split / f"{i}.png")
        mask = draw(i)
        picture = mask if isinstance(mask, Image.Image) else Image.fromarray(np.asarray(mask))
        picture.save(root / "masks" / split / f"{i}.{ending}")
    content = {"classes": CLASSES, "palette": PALETTE, "ignore_index": 255} | description
    (root / "dataset.json").write_text(json.dumps(content))
    return FolderDataset(root)


def found(dataset: FolderDataset) -> list[Finding]:
    surveyed = [(split, survey(split)) for split in map(dataset.split, ("train", "val"))]
    return findings(surveyed) + mistakes(dataset, surveyed)


def stripes(*values: object) -> np.ndarray:
    """A mask with these values, or colours, in vertical stripes."""
    columns = np.array([values[i * len(values) // SHAPE[1]] for i in range(SHAPE[1])], np.uint8)
    return np.broadcast_to(columns, (SHAPE[0], *columns.shape)).copy()


def random_mask(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(3, size=SHAPE, dtype=np.uint8)


def coloured(i: int) -> np.ndarray:
    return np.array(PALETTE, np.uint8)[random_mask(i)]


def as_palette(i: int) -> Image.Image:
    """The right colours under indices in another order."""
    picture = Image.fromarray(2 - random_mask(i))
    picture.putpalette([level for colour in reversed(PALETTE) for level in colour])
    return picture


def smooth(i: int) -> Image.Image:
    return Image.fromarray(coloured(i)).resize((64, 48), Image.Resampling.BILINEAR).resize(SHAPE[::-1])


BROKEN: dict[str, tuple[Callable[[int], object], str, dict[str, object], str]] = {
    "JPEG masks": (random_mask, "jpg", {}, "6 masks are JPEG files: make them anew as PNG"),
    "indices from 1": (
        lambda i: 1 + random_mask(i),
        "png",
        {},
        'indices begin at 1: write "classes": {"sky": 1, "road": 2, "car": 3}',
    ),
    "zero is void": (
        lambda i: stripes(0, 1, 2, 3),
        "png",
        {},
        'if 0 is void, write "classes": {"sky": 1, "road": 2, "car": 3}, "ig',
    ),
    "0 and 255 where 255 is void": (
        lambda i: stripes(0, 255),
        "png",
        {},
        'write "classes": {"background": 0, "object": 255}, if 255 is a class and not void',
    ),
    "0 and 255 where 255 is unknown": (
        lambda i: stripes(0, 255),
        "png",
        {"classes": ["cell", "gap"], "palette": PALETTE[:2], "ignore_index": 9},
        'masks hold 0 and 255: write "classes": {"cell": 0, "gap": 255}',
    ),
    "spread levels": (
        lambda i: stripes(0, 100, 200),
        "png",
        {},
        'masks hold 0, 100, 200: write "classes": {"sky": 0, "road": 100, "car": 200}',
    ),
    "a palette read as RGB, in another order": (as_palette, "png", {}, 'under other indices: write "masks": "colour"'),
    "red and blue swapped": (
        lambda i: coloured(i)[..., ::-1],
        "png",
        {},
        "masks have red and blue swapped: swap them in every colour of the palette",
    ),
    "interpolated colours": (smooth, "png", {}, "as after JPEG or interpolation: make them anew as PNG"),
    "a colour too many": (
        lambda i: stripes(*PALETTE, [1, 2, 3]),
        "png",
        {},
        "masks hold colours that are no class's: (1, 2, 3)",
    ),
    "indices in three channels": (
        lambda i: random_mask(i)[..., None].repeat(3, 2),
        "png",
        {},
        'in three equal channels: write "masks": "index"',
    ),
    "width and height swapped": (lambda i: random_mask(i).T, "png", {}, "6 masks have width and height swapped"),
    "other sizes": (lambda i: random_mask(i)[::2, ::2], "png", {}, "another size than their images: resize them"),
    "all void": (lambda i: stripes(255), "png", {}, "all pixels of train are ignored: there is nothing to learn"),
    "one class": (lambda i: stripes(1), "png", {}, "the masks of train hold only the class 'road': always saying so"),
    "indices of more classes": (lambda i: stripes(0, 1, 40, 41, 42), "png", {}, "say in classes what each stands for"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_mistake_is_found_with_what_to_write(kind: str, tmp_path: Path) -> None:
    masks, ending, description, expected = BROKEN[kind]
    dataset = write(tmp_path, masks, ending, **description)
    errors = [finding.text for finding in found(dataset) if finding.is_error]
    assert [text for text in errors if expected in text], errors
    assert all(len(text.replace(str(tmp_path), "")) < 300 for text in errors)
    with pytest.raises(DataError) as refused:
        review(dataset, "train", "val")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "fix"),
    [
        ("indices from 1", {"classes": {"sky": 1, "road": 2, "car": 3}}),
        ("zero is void", {"classes": {"sky": 1, "road": 2, "car": 3}, "ignore": [0]}),
        ("0 and 255 where 255 is void", {"classes": {"background": 0, "object": 255}, "palette": PALETTE[:2]}),
        ("spread levels", {"classes": {"sky": 0, "road": 100, "car": 200}}),
        ("a palette read as RGB, in another order", {"masks": "colour"}),
        ("red and blue swapped", {"palette": [colour[::-1] for colour in PALETTE]}),
        ("indices in three channels", {"masks": "index"}),
    ],
)
def test_what_it_says_to_write_mends_it(kind: str, fix: dict[str, object], tmp_path: Path) -> None:
    masks, ending, _, _ = BROKEN[kind]
    dataset = write(tmp_path, masks, ending, **fix)
    assert review(dataset, "train", "val") == []


def test_a_sound_data_set_gives_reason_to_say_nothing(tmp_path: Path) -> None:
    assert found(write(tmp_path, random_mask)) == []


def test_all_bad_files_are_found(tmp_path: Path) -> None:
    dataset = write(tmp_path, random_mask)
    (tmp_path / "images/train/1.png").write_bytes(b"no image")
    (tmp_path / "masks/train/3.png").write_bytes(b"no mask")
    steps: list[tuple[str, int, int]] = []
    seen = survey(dataset.split("train"), lambda *step: steps.append(step))
    assert set(seen.bad) == {"train/1", "train/3"}
    assert steps == [("images of train", done, 4) for done in (1, 2, 3, 4)]
    with pytest.raises(DataError, match=r"1\.png is not a readable image .* \(and 1 more in train\)"):
        review(dataset, "train", "val")


def test_one_bad_mask_among_good_ones_is_no_reason_to_number_classes_anew(tmp_path: Path) -> None:
    dataset = write(tmp_path, lambda i: stripes(0, 1, 2, 7) if i == 1 else random_mask(i))
    with pytest.raises(DataError, match="masks hold 0, 1, 2, 7: say in classes what each stands for"):
        review(dataset, "train", "val")


def test_one_split_to_train_and_to_score_on(tmp_path: Path) -> None:
    assert review(write(tmp_path, random_mask), "train", "train") == [
        "train is trained on and scored on, so scores reward memory"
    ]


def test_counts_sizes_and_shares(tmp_path: Path) -> None:
    dataset = write(tmp_path, lambda i: stripes(0, 1, 255, 255))
    seen = survey(dataset.split("train"))
    assert (seen.images, dict(seen.sizes)) == (4, {SHAPE: 4})
    assert seen.class_shares() == {"sky": 0.5, "road": 0.5, "car": 0.0}
    assert (seen.ignored_share, seen.used, seen.images_with[:3].tolist()) == (0.5, (0, 1), [4, 4, 0])
    assert [finding.text for finding in found(dataset)] == ["no mask of train or val holds car"]


def test_images_copied_into_val_are_counted(tmp_path: Path) -> None:
    dataset = write(tmp_path, random_mask)
    (tmp_path / "images/val/4.png").write_bytes((tmp_path / "images/train/2.png").read_bytes())
    assert review(dataset, "train", "val") == [
        "1 of 2 images of val are copies of images of train, so their scores reward memory: val/4, train/2"
    ]


def test_images_nearly_equal_are_counted(tmp_path: Path) -> None:
    dataset = write(tmp_path, random_mask)
    with Image.open(tmp_path / "images/train/2.png") as picture:
        darker = picture.point(lambda level: level * 0.9)
    darker.save(tmp_path / "images/val/5.png")
    assert review(dataset, "train", "val") == [
        "1 of 2 images of val look almost like images of train, so their scores reward memory: val/5, train/2"
    ]


def test_classes_that_only_val_holds_and_masks_of_void(tmp_path: Path) -> None:
    masks = iter([*[stripes(0, 1)] * 3, stripes(255), *[stripes(0, 2)] * 2])
    dataset = write(tmp_path, lambda i: next(masks))
    assert review(dataset, "train", "val") == [
        "1 mask of train is ignored throughout: train/3",
        "val holds classes that train never does: car",
    ]


def test_dark_16_bit_images_are_told(tmp_path: Path) -> None:
    dataset = write(tmp_path, random_mask)
    for path in (tmp_path / "images").rglob("*.png"):
        rng = np.random.default_rng(int(path.stem))
        Image.fromarray(rng.integers(4096, size=SHAPE).astype(np.uint16)).save(path)
    assert any("16-bit images are no brighter than 40" in warning for warning in review(dataset, "train", "val"))


def test_a_mask_that_was_not_turned_with_its_photo(tmp_path: Path) -> None:
    dataset = write(tmp_path, random_mask)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SHAPE[::-1]).save(tmp_path / "images/train/0.png", exif=exif)
    with pytest.raises(DataError, match="turned by its EXIF orientation, and the mask is not"):
        dataset.split("train").check()


def test_computed_samples_are_not_looked_at() -> None:
    assert review(open_dataset("streets:train=100000"), "train", "val") == []


def test_a_drawn_split_is_looked_at(tmp_path: Path) -> None:
    dataset = write(tmp_path, random_mask)
    assert review(dataset, "train@-25%", "train@25%") == []
    with pytest.raises(DataError, match="must be a share"):
        review(dataset, "train@-25%", "train@x")


def test_balanced_weights_make_rare_classes_count_as_much(tmp_path: Path) -> None:
    """Of 8 columns, class 0 has 5, class 1 has 2, and 1 is ignored; class 2 does not occur."""
    dataset = write(tmp_path, lambda i: stripes(0, 0, 0, 0, 0, 1, 1, 255))
    seen = survey(dataset.split("train"))
    median = (5 + 2) / 2
    assert seen.balanced_weights() == pytest.approx(((median / 5) ** 0.5, (median / 2) ** 0.5, 1.0), abs=1e-3)
