import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nasseg.data import DataError, FolderDataset, open_dataset
from nasseg.train.provenance import DataInfo


def problem(folder: Path, split: str = "train") -> str:
    """The one line that checking a split ends with."""
    with pytest.raises(DataError) as error:
        FolderDataset(folder).split(split).check()
    message = str(error.value)
    assert "\n" not in message
    return message


def test_samples_are_the_files_pixels(folder: Path) -> None:
    split = open_dataset(f"folder:{folder}").split("train")
    split.check()
    for sample, suffix in zip((split[0], split[1]), ("jpg", "png"), strict=True):
        image = np.array(Image.open(folder / "images" / f"{sample.name}.{suffix}"))
        assert torch.equal(sample.image, torch.from_numpy(image).permute(2, 0, 1))
        mask = np.array(Image.open(folder / "masks" / f"{sample.name}.png"))
        assert torch.equal(sample.mask, torch.from_numpy(mask))
    assert [split[i].name for i in range(len(split))] == ["train/a", "train/b"]


def test_splits_are_folders_text_files_and_their_unions(folder: Path) -> None:
    dataset = FolderDataset(folder)
    assert dataset.splits() == ("search", "train", "val")
    names = {name: [sample.name for sample in dataset.split(name)] for name in ("search", "train+val", "search+train")}
    assert names == {
        "search": ["val/c", "train/a"],
        "train+val": ["train/a", "train/b", "val/c"],
        "search+train": ["val/c", "train/a", "train/b"],
    }


def test_spec_opens_the_same_data_set_from_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    dataset = open_dataset("folder:data")
    monkeypatch.chdir("/")
    assert open_dataset(dataset.spec).split("train").fingerprint == dataset.split("train").fingerprint


@pytest.mark.parametrize("between", [",", "; ", "\t", " ", " , "])
def test_lists_of_pairs_whose_names_have_spaces_and_commas(folder: Path, between: str) -> None:
    pair = [f"{kind}/day 1, rain/a b.png" for kind in ("photos", "truth")]
    for old, new in zip(("images/train/b.png", "masks/train/b.png"), pair, strict=True):
        (folder / new).parent.mkdir(parents=True)
        (folder / old).rename(folder / new)
    (folder / "first.txt").write_text(between.join(pair) + "\n")
    description = {"classes": ["x", "y", "z"], "layout": {"list": "{split}.txt"}}
    (folder / "dataset.json").write_text(json.dumps(description))
    split = FolderDataset(folder).split("first")
    (item,) = split.items  # type: ignore[attr-defined]
    assert (item.image, item.masks) == (folder / pair[0], (folder / pair[1],))
    assert split[0].name == "photos/day 1, rain/a b"


@pytest.mark.parametrize("name", ["my data", "写真\u3000集", "Shot\u202f1", "non\u00a0breaking"])
def test_a_path_with_any_kind_of_space_is_named_in_models(folder: Path, name: str) -> None:
    dataset = FolderDataset(folder.rename(folder.with_name(name)))
    known = DataInfo.of(dataset, "train", "val", (8, 12))
    assert known.spec == dataset.spec == f"folder:{folder.with_name(name)}"


def test_a_path_that_no_model_could_name_is_refused_as_it_is_opened(folder: Path) -> None:
    hidden = folder.rename(folder.with_name("da\u200bta"))
    with pytest.raises(DataError, match=r"holds characters that cannot be printed; rename the folder"):
        FolderDataset(hidden)


def test_fingerprint_follows_content(folder: Path) -> None:
    dataset = FolderDataset(folder)
    before = dataset.split("train").fingerprint
    assert before == FolderDataset(folder).split("train").fingerprint
    assert before != dataset.split("val").fingerprint
    os.utime(folder / "masks/train/a.png", ns=(1, 1))
    assert before != dataset.split("train").fingerprint


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is not a folder"):
        open_dataset(f"folder:{tmp_path}/nowhere")
    with pytest.raises(DataError, match=r"folder:PATH"):
        open_dataset("folder")


def test_missing_description(folder: Path) -> None:
    (folder / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"dataset\.json is missing"):
        FolderDataset(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"classes": None}, "classes"),
        ({"classes": []}, "classes"),
        ({"palette": [[0, 0, 0], [0, 300, 0], [0, 0, 0]]}, r"palette\[1\]\[1\]"),
        ({"palette": [[0, 0, 0]]}, "palette has 1 colours"),
        ({"classes": ["x", "y", "x"]}, "'x' is there twice"),
        ({"classes": {"x": 0, "y": [1, 2], "z": 2}}, "classes.z holds 2, which stands for 'y', too"),
        (
            {"classes": {"x": [128, 64, 128], "y": 1, "z": 2}},
            r"classes.x holds 128 twice; a colour is a list in a list",
        ),
        ({"layout": {"images": "../{name}", "masks": "masks/{name}"}}, r"layout\[0\].images: '../{name}' leads out of"),
        ({"layout": {"images": "images/{name}", "masks": "/etc/{name}"}}, "leads out of"),
        ({"layout": {"images": "images/{name}", "masks": "masks"}}, "must hold {name}"),
        ({"layout": {"images": "images/{name}"}}, "masks is missing"),
        ({"layout": {"list": "all.txt"}}, "must hold {split}"),
        ({"layout": {"images": "images/{name}", "masks": "m/{name}", "splits": {"a+b": "x"}}}, "cannot name a split"),
        ({"layout": {"images": "images/{name}", "masks": "***{name}"}}, "must hold one . and 300 characters at most"),
        ({"roots": [".."]}, "leads out of"),
        ({"ignore_index": "none"}, "ignore_index"),
        ({"ignore_index": 2}, "ignore_index is 2, but must not be a class index"),
    ],
)
def test_invalid_description_names_the_field(folder: Path, change: dict[str, object], expected: str) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=rf"dataset\.json: .*{expected}"):
        FolderDataset(folder)


def test_description_that_is_no_json(folder: Path) -> None:
    (folder / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json is not JSON: "):
        FolderDataset(folder)


def test_an_image_without_a_mask_is_left_out_and_counted(folder: Path) -> None:
    (folder / "masks/train/a.png").unlink()
    split = FolderDataset(folder).split("train")
    assert [split.sample_name(i) for i in range(len(split))] == ["train/b"]
    assert split.notes == ("train: 1 image has no mask and is left out: images/train/a.jpg",)


def test_a_mask_without_an_image_is_left_out_and_counted(folder: Path) -> None:
    (folder / "images/train/a.jpg").unlink()
    assert FolderDataset(folder).split("train").notes == (
        "train: 1 mask has no image and is left out: masks/train/a.png",
    )


def test_what_systems_leave_behind_is_no_sample(folder: Path) -> None:
    for name in ("images/train/._a.jpg", "masks/train/._x.png", "masks/train/.DS_Store", "images/train/Thumbs.db"):
        (folder / name).write_bytes(b"junk")
    split = FolderDataset(folder).split("train")
    assert (len(split), split.notes) == (2, ())
    split.check()


def test_nothing_left_of_a_split_says_why(folder: Path) -> None:
    for mask in (folder / "masks/val").iterdir():
        mask.unlink()
    (folder / "splits/val.txt").write_text("val/c\n")
    assert "is empty, but must hold at least one image (val: 1 image has no mask" in problem(folder, "val")


def test_two_images_with_one_mask(folder: Path) -> None:
    (folder / "images/train/a.png").write_bytes((folder / "images/train/a.jpg").read_bytes())
    assert "share one mask" in problem(folder)


def test_class_index_out_of_range(folder: Path, write_mask: Callable[..., None]) -> None:
    write_mask(np.full((8, 12), 7, np.uint8))
    message = problem(folder)
    assert "train/a.png holds class index 7, but must hold 0 to 2, or 255 to ignore a pixel" in message


def test_sizes_that_differ(folder: Path, write_mask: Callable[..., None]) -> None:
    write_mask(np.zeros((12, 8), np.uint8))
    message = problem(folder)
    assert "a.png is 12x8" in message
    assert "a.jpg, 8x12" in message


def test_colour_masks_are_read_by_the_palette(folder: Path, write_mask: Callable[..., None]) -> None:
    colours = np.zeros((8, 12, 3), np.uint8)
    colours[:4, :, 0], colours[4:, :6, 1] = 255, 255
    write_mask(colours)
    expected = torch.zeros(8, 12, dtype=torch.uint8)
    expected[:4], expected[4:, :6] = 1, 2
    assert torch.equal(FolderDataset(folder).split("train")[0].mask, expected)


def test_colours_that_are_no_classes(folder: Path, write_mask: Callable[..., None]) -> None:
    colours = np.zeros((8, 12, 3), np.uint8)
    colours[0, :3] = (9, 8, 7)
    write_mask(colours)
    assert "a.png holds a colour that is no class's: [9, 8, 7]; add it to classes or ignore" in problem(folder)


def test_bilevel_mask_holds_classes_0_and_1(folder: Path, write_mask: Callable[..., None]) -> None:
    write_mask(np.eye(8, 12, dtype=bool))
    assert torch.equal(FolderDataset(folder).split("train")[0].mask, torch.eye(8, 12, dtype=torch.uint8))


@pytest.mark.parametrize("name", ["images/train/a.jpg", "images/train/b.png", "masks/train/a.png"])
def test_truncated_file(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    pixels = content.find(b"IDAT") + 8 if name.endswith("png") else len(content) - 40
    for length in (0, 1, 10, 40, len(content) // 3, pixels):
        (folder / name).write_bytes(content[:length])
        assert name in problem(folder)


def test_empty_split(folder: Path) -> None:
    (folder / "splits/none.txt").write_text("\n")
    assert "split 'none'" in problem(folder, "none")
    assert "is empty" in problem(folder, "none")


def test_unknown_split_lists_the_known(folder: Path) -> None:
    assert "has no split 'tset': its splits are search, train, val" in problem(folder, "train+tset")


@pytest.mark.parametrize("line", ["train/x", "a", "nowhere/a"])
def test_text_split_with_unknown_image(folder: Path, line: str) -> None:
    (folder / "splits/search.txt").write_text(f"val/c\n{line}\n")
    message = problem(folder, "search")
    assert "search.txt line 2" in message
    assert repr(line) in message


def test_camvid(shared: Path) -> None:
    dataset = FolderDataset(shared / "camvid")
    sizes = {name: len(dataset.split(name)) for name in ("train", "val", "test", "search-train", "search-val")}
    assert sizes == {"train": 367, "val": 101, "test": 233, "search-train": 266, "search-val": 101}
    assert dataset.split("search-val")[0].image.shape == (3, 360, 480)
