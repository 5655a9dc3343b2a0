"""`nasseg data`, and data that no search or training may begin with."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from nasseg.data import open_dataset
from nasseg.data.folder import FolderSplit
from tests.cli.conftest import Done
from tests.jobs.tiny import SPACE

Run = Callable[..., Done]
Refused = Callable[..., str]
COLOURS = np.array([[70, 130, 180], [128, 64, 128], [0, 0, 0]], np.uint8)


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Photos with masks in colour beside them, lists of pairs, and a file of classes."""
    root = tmp_path / "colours"
    rng = np.random.default_rng(0)
    for name in "abcdef":
        for kind in ("photos", "truth"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(32, 48, 3), dtype=np.uint8)).save(root / f"photos/{name}.jpg")
        Image.fromarray(COLOURS[rng.integers(3, size=(32, 48))]).save(root / f"truth/{name}_gt.png")
    for split, names in (("train", "abcd"), ("val", "ef")):
        (root / f"{split}.txt").write_text("".join(f"photos/{name}.jpg truth/{name}_gt.png\n" for name in names))
    (root / "class_dict.csv").write_text("name,r,g,b\nsky,70,130,180\nroad,128,64,128\n")
    return root


def test_init_describes_what_it_sees(nasseg: Run, refused: Refused, colours: Path) -> None:
    done = nasseg("data", "init", colours)
    assert done.code == 0
    assert "train: 4 images" in done.err
    assert (
        "name the classes in it" not in done.err.splitlines()[-1] or "data check folder:" in done.err.splitlines()[-1]
    )
    content = json.loads((colours / "dataset.json").read_text())
    assert content == {
        "name": "colours",
        "classes": ["sky", "road"],
        "palette": [[70, 130, 180], [128, 64, 128]],
        "ignore_index": 255,
        "ignore": [[0, 0, 0]],
        "layout": {"images": "photos/{name}", "masks": "truth/{name}_gt", "list": "{split}.txt"},
    }
    assert "exists already; edit it, or write over it with --force" in refused("data", "init", colours)
    assert nasseg("data", "init", colours, "--force", "--classes", "a,b").code == 0
    assert open_dataset(f"folder:{colours}").classes == ("a", "b")
    assert "--classes names 1, but the masks hold 2: sky, road" in refused(
        "data", "init", colours, "--force", "--classes", "a"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2, 255], ["class 0", "class 1", "class 2"]),
        ([0, 255], {"background": 0, "object": 255}),
        ([7, 300, 9000], {"class 7": 7, "class 300": 300, "class 9000": 9000}),
        ([1, 2, 3], ["class 0", "class 1", "class 2", "class 3"]),
    ],
)
def test_init_of_indices(nasseg: Run, tmp_path: Path, values: list[int], expected: object) -> None:
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    mask = np.resize(values, (8, 12)).astype(np.uint8 if max(values) < 256 else np.uint16)
    for name in "ab":
        Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(tmp_path / f"data/images/{name}.jpg")
        Image.fromarray(mask).save(tmp_path / f"data/masks/{name}.png")
    done = nasseg("data", "init", tmp_path / "data")
    assert (done.code, "--val-split 20%" in done.err) == (0, True)
    assert json.loads((tmp_path / "data/dataset.json").read_text())["classes"] == expected


def test_init_of_a_folder_without_masks_says_what_is_there(refused: Refused, tmp_path: Path, folder: Path) -> None:
    (folder / "masks").rename(tmp_path / "elsewhere")
    (folder / "dataset.json").unlink()
    line = refused("data", "init", folder)
    assert "no masks found for the 3 images below" in line
    assert "images/train/ (2), images/val/ (1): name a folder masks/" in line
    (tmp_path / "empty").mkdir()
    assert "holds no images; give the folder" in refused("data", "init", tmp_path / "empty")


def test_check_shows_what_is_there(nasseg: Run, folder: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    done = nasseg("data", "check", f"folder:{folder}", "--out", sheet)
    assert (done.code, str(sheet) in done.err) == (0, True)
    assert "layout: images images/{split}/{name}, masks masks/{split}/{name}" in done.out
    assert "32x48 (2)" in done.out
    assert "nothing found that looks wrong" in done.out
    with Image.open(sheet) as picture:
        assert (picture.format, picture.width > 300) == ("PNG", True)


def test_check_refuses_another_kind_of_picture_before_it_reads(
    refused: Refused, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FolderSplit, "__getitem__", lambda split, index: pytest.fail("read"))
    line = refused("data", "check", f"folder:{folder}", "--out", tmp_path / "sheet.jpg")
    assert line == f"{tmp_path / 'sheet.jpg'} has the suffix '.jpg', but must end in .png or .svg"


def test_check_as_json_lists_every_bad_file(nasseg: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "images/train/b.jpg").write_bytes(b"")
    Image.fromarray(np.full((32, 48), 9, np.uint8)).save(folder / "masks/val/c.png")
    done = nasseg("data", "check", f"folder:{folder}", "--out", tmp_path / "sheet.png", "--json")
    assert done.code == 2
    splits = done.document["splits"]
    assert set(splits["train"]["bad"]) == {"train/b"}
    assert set(splits["val"]["bad"]) == {"val/c"}
    assert splits["train"]["sizes"] == {"32x48": 1}
    assert len(done.document["errors"]) == 3
    assert done.document["classes"] == ["x", "y", "z"]


def test_check_draws_the_validation_split(nasseg: Run, colours: Path, tmp_path: Path) -> None:
    nasseg("data", "init", colours)
    options = ("--val-split", "25%", "--out", tmp_path / "sheet.png", "--json")
    splits = nasseg("data", "check", f"folder:{colours}", *options).document["splits"]
    assert {name: split["images"] for name, split in splits.items()} == {"train@-25%": 3, "train@25%": 1, "val": 2}


@pytest.mark.slow
def test_masks_in_colour_go_from_folder_to_search_and_retraining(nasseg: Run, colours: Path, tmp_path: Path) -> None:
    """With the validation split drawn; images copied into it are warned about."""
    assert nasseg("data", "init", colours).code == 0
    (colours / "photos/b.jpg").write_bytes((colours / "photos/a.jpg").read_bytes())
    dials = ("--rungs", "1,2", "--full-steps", "2", "--finalists", "1", "--seeds", "1", "--image-scale", "1")
    what = ("--data", f"folder:{colours}", "--train-split", "train+val", "--val-split", "50%", "--space", SPACE)
    run = tmp_path / "run"
    done = nasseg("search", *what, *dials, "--budget", "3trials", "--runner", "in-process", "--out", run)
    assert done.code == 0
    assert "warning: " in done.err
    assert "are copies of images of train+val@-50%" in done.err
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["train_split"], config["val_split"]) == ("train+val@-50%", "train+val@50%")
    again = nasseg("retrain", run / "best.json", "--space", SPACE, "--steps", "2", "--out", tmp_path / "trained")
    assert (again.code, "mIoU" in again.err) == (0, True)
    config = yaml.safe_load((tmp_path / "trained/config.yaml").read_text())
    assert (config["train_split"], config["val_split"]) == ("train+val@-50%", "train+val@50%")


def test_a_layout_that_nobody_knows_is_explained(refused: Refused, folder: Path) -> None:
    (folder / "masks").rename(folder / "painted")
    line = refused("data", "check", f"folder:{folder}")
    assert "holds no image with a mask: looked for images/{split}/{name} with masks masks/{split}/{name}" in line
    assert "nasseg data init" in line


def test_a_layout_that_is_known_needs_no_description_of_it(nasseg: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "masks").rename(folder / "annotations")
    (folder / "images").rename(folder / "img_dir")
    assert nasseg("data", "check", f"folder:{folder}", "--out", tmp_path / "sheet.png").code == 0


def test_public_data_sets_are_listed(nasseg: Run) -> None:
    listed = {row["name"]: row["description"] for row in nasseg("list", "datasets", "--json").document}
    assert listed["ade20k"].startswith("ADE20K scene parsing")
    assert listed["folder"].startswith("Your images and masks")


def test_a_public_data_set_that_is_not_there(refused: Refused, folder: Path) -> None:
    line = refused("data", "check", f"cityscapes:{folder}")
    assert "looked for leftImg8bit/{split}/{name}_leftImg8bit.png with masks gtFine/" in line
    assert "cityscapes has no path: give it as cityscapes:PATH" in refused("data", "check", "cityscapes")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: {a: [x, y]}", "leaves out z: merge them into a class, or write ignore: rest"),
        ("classes: {a: [x, y, q]}\nignore: rest", "'q' is no class of the data; its classes are x, y, z"),
        ("classes: {a: [x], b: [x]}\nignore: rest", "'x' is there twice"),
        ("classes: [a, b]", "classes is"),
        ("classes: {a: !!python/object/apply:os.system [exit]}", "is not YAML"),
        ("- a", "must be a valid dictionary"),
        ("classes: {a: [x]}\nignored: rest", "ignored is not a known field"),
    ],
)
def test_a_file_of_classes_that_does_not_fit(
    refused: Refused, folder: Path, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "merge.yaml").write_text(text)
    assert message in refused("data", "check", f"folder:{folder},classes={tmp_path}/merge.yaml")


@pytest.mark.parametrize(
    "line", ["../secret.jpg masks/train/a.png", "images/train/a.jpg ../../etc/passwd", "/etc/passwd"]
)
def test_lists_cannot_lead_out_of_the_folder(refused: Refused, folder: Path, line: str) -> None:
    (folder.parent / "secret.jpg").write_bytes((folder / "images/train/a.jpg").read_bytes())
    (folder / "splits").mkdir()
    (folder / "splits/val.txt").write_text(f"{line}\n")
    assert "splits/val.txt line 1" in refused("data", "check", f"folder:{folder}")


def test_init_with_names_that_cannot_be_writes_nothing(nasseg: Run, refused: Refused, colours: Path) -> None:
    message = refused("data", "init", colours, "--classes", "same,same")
    assert message.startswith(f"{colours / 'dataset.json'}: classes: the class 'same' is there twice")
    assert not (colours / "dataset.json").exists()
    assert nasseg("data", "init", colours, "--classes", "sky,road").code == 0
