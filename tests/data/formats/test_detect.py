"""Folders as people have them: the layout is found by the names of folders and files."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from nasseg.data.formats import Files, Layout, find_layout
from nasseg.data.formats.layout import walk
from nasseg.data.formats.lists import Item


def write(root: Path, paths: Iterable[str]) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def relative(root: Path, items: Iterable[Item]) -> set[tuple[str, str]]:
    return {(i.image.relative_to(root).as_posix(), i.masks[0].relative_to(root).as_posix()) for i in items}


FOLDERS = {
    "images/SPLIT and masks/SPLIT": ("images/{s}/{n}.jpg", "masks/{s}/{n}.png"),
    "SPLIT/images and SPLIT/masks": ("{s}/images/{n}.jpg", "{s}/masks/{n}.png"),
    "SPLIT/images and SPLIT/labels": ("{s}/images/{n}.tif", "{s}/labels/{n}.tif"),
    "images and annotations": ("images/{s}/{n}.jpg", "annotations/{s}/{n}.png"),
    "img_dir and ann_dir": ("img_dir/{s}/{n}.jpg", "ann_dir/{s}/{n}.png"),
    "below a folder": ("data/v1/images/{s}/{n}.jpg", "data/v1/labels/{s}/{n}.png"),
    "endings in capitals": ("Images/{s}/{n}.JPG", "Masks/{s}/{n}.PNG"),
    "webp and bmp": ("images/{s}/{n}.webp", "masks/{s}/{n}.bmp"),
    "nested cities": ("images/{s}/city{n}/{n}_a.jpg", "labels/{s}/city{n}/{n}_a.png"),
    "a suffix of masks": ("images/{s}/{n}.jpg", "masks/{s}/{n}_mask.png"),
    "suffixes of both": ("leftImg8bit/{s}/c/{n}_leftImg8bit.png", "gtFine/{s}/c/{n}_gtFine_labelIds.png"),
    "a prefix of masks": ("images/{s}/{n}.jpg", "masks/{s}/mask_{n}.png"),
    "prefixes of both": ("images/{s}/img_{n}.jpg", "masks/{s}/lbl_{n}.png"),
    "SPLIT and SPLIT_masks": ("{s}/{n}.jpg", "{s}_masks/{n}_mask.gif"),
    "SPLIT and SPLITannot": ("{s}/{n}.png", "{s}annot/{n}.png"),
    "SPLIT_images and SPLIT_labels": ("{s}_images/{n}.png", "{s}_labels/{n}_L.png"),
    "one folder, told by the suffix": ("{s}/{n}.jpg", "{s}/{n}_mask.png"),
    "one folder, told by the ending": ("{s}/{n}.jpg", "{s}/{n}.png"),
}
NAMES = {"train": ["001", "002", "010"], "val": ["101", "102"]}


@pytest.mark.parametrize("kind", FOLDERS)
def test_layouts_with_folders_for_splits(kind: str, tmp_path: Path) -> None:
    image, mask = FOLDERS[kind]
    expected = {s: {(image.format(s=s, n=n), mask.format(s=s, n=n)) for n in NAMES[s]} for s in NAMES}
    write(tmp_path, (path for pairs in expected.values() for pair in pairs for path in pair))
    layout = find_layout(tmp_path)
    assert layout is not None
    files = Files(tmp_path, layout)
    assert {split: relative(tmp_path, files.find(split).items) for split in files.splits} == expected


@pytest.mark.parametrize("kind", ["images and masks", "suffix", "ending", "one folder"])
def test_layouts_without_splits_are_one_to_draw_from(kind: str, tmp_path: Path) -> None:
    image, mask = {
        "images and masks": ("images/{n}.jpg", "masks/{n}.png"),
        "suffix": ("photos/{n}.jpg", "labels/{n}_seg.png"),
        "ending": ("{n}.jpg", "{n}.png"),
        "one folder": ("{n}.png", "{n}_mask.png"),
    }[kind]
    expected = {(image.format(n=n), mask.format(n=n)) for n in ("a", "b", "c")}
    write(tmp_path, (path for pair in expected for path in pair))
    layout = find_layout(tmp_path)
    assert layout is not None
    files = Files(tmp_path, layout)
    assert list(files.splits) == ["train"]
    assert relative(tmp_path, files.find("train").items) == expected


@pytest.mark.parametrize(
    ("listing", "line"),
    [
        ("{s}.txt", "{n}"),
        ("splits/{s}.txt", "{n}.jpg"),
        ("ImageSets/Segmentation/{s}.txt", "{n}"),
        ("{s}.txt", "photos/{n}.jpg"),
        ("{s}.txt", "photos/{n}.jpg labels/{n}.png"),
        ("lists/{s}.txt", "/home/me/data/photos/{n}.jpg\t/home/me/data/labels/{n}.png"),
        ("{s}.csv", "photos/{n}.jpg,labels/{n}.png"),
    ],
)
def test_lists_of_names_of_paths_and_of_pairs(listing: str, line: str, tmp_path: Path) -> None:
    names = {"train": ["b", "a"], "val": ["c"]}
    write(tmp_path, [f"{f}/{n}.{e}" for n in "abcd" for f, e in (("photos", "jpg"), ("labels", "png"))])
    for split, members in names.items():
        path = tmp_path / listing.format(s=split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line.format(n=name) + "\n" for name in members))
    layout = find_layout(tmp_path)
    assert layout is not None
    files = Files(tmp_path, layout)
    found = {split: [item.image.stem for item in files.find(split).items] for split in files.splits}
    assert found == names


def test_a_pair_is_that_of_its_line_even_if_other_names_are_alike(tmp_path: Path) -> None:
    write(tmp_path, [f"{folder}/{n}.png" for folder in ("images", "masks") for n in "12"])
    (tmp_path / "train.txt").write_text("/data/images/1.png /data/masks/2.png\n")
    files = Files(tmp_path, Layout(images="images/{name}", masks="masks/{name}", list="{split}.txt"))
    assert relative(tmp_path, files.find("train").items) == {("images/1.png", "masks/2.png")}


def test_lists_of_pairs_suffice(tmp_path: Path) -> None:
    write(tmp_path, ["x/1.jpg", "y/7.png", "x/2.jpg", "y/8.png"])
    (tmp_path / "train.txt").write_text("x/1.jpg y/7.png\nx/2.jpg y/8.png\n")
    layout = find_layout(tmp_path)
    assert layout == Layout(list="{split}.txt")
    assert relative(tmp_path, Files(tmp_path, layout).find("train").items) == {
        ("x/1.jpg", "y/7.png"),
        ("x/2.jpg", "y/8.png"),
    }


def test_a_list_of_classes_is_no_split(tmp_path: Path) -> None:
    write(tmp_path, [f"{folder}/{n}.png" for folder in ("images", "masks") for n in "abc"])
    for name, text in (("train", "a\nb\n"), ("valid", "c\n"), ("classes", "road\ncar\n"), ("README", "Read me.\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    layout = find_layout(tmp_path)
    assert layout is not None
    assert layout.splits == {"train": "train", "val": "valid"}


def test_a_link_to_the_folder_itself_is_followed_no_further(tmp_path: Path) -> None:
    write(tmp_path, ["images/a.jpg", "masks/a.png"])
    (tmp_path / "images/again").symlink_to(tmp_path)
    assert len(list(walk(tmp_path))) == 2


def test_splits_get_their_usual_names(tmp_path: Path) -> None:
    write(tmp_path, [f"{f}/{s}/{n}.png" for f in ("images", "masks") for s in ("training", "validation") for n in "ab"])
    layout = find_layout(tmp_path)
    assert layout is not None
    assert layout.splits == {"train": "training", "val": "validation"}


def test_a_folder_for_each_image_with_a_mask_for_each_instance(tmp_path: Path) -> None:
    write(tmp_path, [f"stage1_train/{n}/{f}.png" for n in ("ab", "cd") for f in (f"images/{n}", "masks/1", "masks/2")])
    layout = find_layout(tmp_path)
    assert layout == Layout(images="stage1_train/{name}/images/{name}", masks="stage1_train/{name}/masks/*")
    assert [len(item.masks) for item in Files(tmp_path, layout).find("train").items] == [2, 2]


def test_masks_of_classes_go_before_colours_and_instances(tmp_path: Path) -> None:
    kinds = ("gt_color", "gt_instanceIds", "gt_labelIds")
    write(
        tmp_path, [f"images/{n}_cam.png" for n in "abc"] + [f"labels/{n}_{kind}.png" for n in "abc" for kind in kinds]
    )
    assert find_layout(tmp_path) == Layout(images="images/{name}_cam", masks="labels/{name}_gt_labelIds")


def test_images_alone_have_no_layout(tmp_path: Path) -> None:
    write(tmp_path, ["images/train/a.jpg", "images/train/b.jpg"])
    assert find_layout(tmp_path) is None
