"""The public data sets that are known by name, as small trees of their real layout and encoding."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_matrix

from nasseg.data import Dataset, formats, open_dataset
from nasseg.data.formats.description import voc_colours
from nasseg.data.formats.official import official, official_names
from nasseg.testing import DatasetConformance

SIZE = (6, 8)


def image(path: Path) -> None:
    """Write an image that no other has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.as_posix().encode()))
    Image.fromarray(rng.integers(256, size=(*SIZE, 3), dtype=np.uint8)).save(path)


def mask(path: Path, *values: object, palette: bool = False, dtype: type = np.uint8) -> None:
    """Write a mask whose columns hold these indices or colours in turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = np.array([values[i % len(values)] for i in range(SIZE[1])], dtype)
    picture = Image.fromarray(np.broadcast_to(columns, (SIZE[0], *columns.shape)).copy())
    if palette:
        picture.putpalette([level for colour in voc_colours(256) for level in colour])
    picture.save(path)


def cityscapes(root: Path, kind: str = "gtFine", extra: bool = False) -> None:
    for split, city in (
        ("train", "aachen"),
        ("val", "lindau"),
        ("test", "berlin"),
        *([("train_extra", "bonn")] * extra),
    ):
        for frame in (19, 20):
            stem = f"{city}_000000_{frame:06d}"
            image(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
            masks = root / kind / split / city / f"{stem}_{kind}"
            mask(Path(f"{masks}_labelIds.png"), 7, 8, 11, 33, 0, 3, 9, 18)
            mask(Path(f"{masks}_color.png"), (128, 64, 128), (0, 0, 0))
            mask(Path(f"{masks}_instanceIds.png"), 7, 26001, dtype=np.uint16)


def cityscapes_coarse(root: Path) -> None:
    cityscapes(root, "gtCoarse", extra=True)


def voc(root: Path, masks: str = "SegmentationClass", train: str = "train") -> None:
    root = root / "VOCdevkit/VOC2012"
    for name in ("2007_000032", "2007_000033", "2007_000039", "2007_000999"):
        image(root / "JPEGImages" / f"{name}.jpg")
    for name in ("2007_000032", "2007_000033", "2007_000039"):
        mask(root / masks / f"{name}.png", 0, 1, 15, 20, 255, palette=True)
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / f"{train}.txt").write_text("2007_000033\n2007_000032\n")
    (lists / "val.txt").write_text("2007_000039\n")


def voc_aug(root: Path) -> None:
    voc(root, "SegmentationClassAug", "trainaug")


def matlab_mask(path: Path, *values: int, compressed: bool = True) -> None:
    """Write a mask as SBD has them: in a struct, beside boundaries as sparse matrices, one a class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = np.array([values[i % len(values)] for i in range(SIZE[1])], np.uint8)
    boundaries = np.empty((20, 1), object)
    boundaries[:] = [[csc_matrix(SIZE, dtype=bool)]]
    content = {
        "Boundaries": boundaries,
        "Segmentation": np.broadcast_to(columns, SIZE),
        "CategoriesPresent": np.array(sorted({*values} - {0}), np.uint8)[:, None],
    }
    savemat(path, {"GTcls": content}, do_compression=compressed)


def sbd(root: Path) -> None:
    for name in ("2008_000002", "2008_000003", "2008_000007"):
        image(root / "benchmark_RELEASE/dataset/img" / f"{name}.jpg")
        matlab_mask(root / "benchmark_RELEASE/dataset/cls" / f"{name}.mat", 0, 1, 15, 20)
    (root / "benchmark_RELEASE/dataset/train.txt").write_text("2008_000007\n2008_000002\n")
    (root / "benchmark_RELEASE/dataset/val.txt").write_text("2008_000003\n")


def voc_with_sbd(root: Path) -> None:
    voc(root, train="train_aug")
    image(root / "VOCdevkit/VOC2012/JPEGImages/2008_000002.jpg")
    for name in ("2008_000002", "2007_000033"):
        matlab_mask(root / "benchmark_RELEASE/dataset/cls" / f"{name}.mat", 0, 0, 5)
    (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/train_aug.txt").write_text("2007_000033\n2008_000002\n")


def ade20k(root: Path) -> None:
    for split, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        image(root / "ADEChallengeData2016/images" / split / f"{name}.jpg")
        mask(root / "ADEChallengeData2016/annotations" / split / f"{name}.png", 0, 1, 2, 150)


def camvid(root: Path) -> None:
    for name in ("0006R0_f00930", "0016E5_00390", "0016E5_07959", "0001TP_008520", "0001TP_008550", "Seq05VD_f00000"):
        image(root / "701_StillsRaw_full" / f"{name}.png")
        mask(root / "LabeledApproved_full" / f"{name}_L.png", (128, 128, 128), (192, 0, 64), (0, 0, 0), (64, 128, 64))


def coco_stuff(root: Path) -> None:
    for split, name in (("train2017", "000000000009"), ("val2017", "000000000139")):
        image(root / "images" / split / f"{name}.jpg")
        mask(root / "annotations" / split / f"{name}.png", 0, 12, 91, 181, 255)


def mapillary(root: Path, version: str = "v1.2", void: int = 65) -> None:
    for split, name in (("training", "a_1"), ("validation", "b-2")):
        image(root / split / "images" / f"{name}.jpg")
        mask(root / split / version / "labels" / f"{name}.png", 0, 13, void - 1, void, palette=True)
        mask(root / split / version / "instances" / f"{name}.png", 256, 13 * 256, dtype=np.uint16)
    image(root / "testing/images/c.jpg")


def mapillary_v2(root: Path) -> None:
    mapillary(root, "v2.0", 123)


def bdd100k(root: Path) -> None:
    for split, name in (("train", "0a0a0b1a-7c39d841"), ("val", "7d2f7975-e0c1c5a7")):
        image(root / "bdd100k/images/10k" / split / f"{name}.jpg")
        mask(root / "bdd100k/labels/sem_seg/masks" / split / f"{name}.png", 0, 18, 255)
        mask(root / "bdd100k/labels/sem_seg/colormaps" / split / f"{name}.png", (128, 64, 128))
    image(root / "bdd100k/images/10k/test/ac6d4f42.jpg")


def dsb2018(root: Path) -> None:
    for name in ("00ae65", "0a7d30"):
        image(root / "stage1_train" / name / "images" / f"{name}.png")
        mask(root / "stage1_train" / name / "masks" / "f6ee.png", *[255] + [0] * 7)
        mask(root / "stage1_train" / name / "masks" / "07a9.png", *[0] * 6 + [255, 0])
    image(root / "stage1_test/0114f4/images/0114f4.png")


TREES: dict[str, tuple[Callable[[Path], None], dict[str, list[str]], list[int]]] = {
    "cityscapes": (
        cityscapes,
        {
            "train": ["train/aachen/aachen_000000_000019", "train/aachen/aachen_000000_000020"],
            "val": ["val/lindau/lindau_000000_000019", "val/lindau/lindau_000000_000020"],
        },
        [0, 1, 2, 18, 255, 255, 255, 255],
    ),
    "cityscapes-coarse": (
        cityscapes_coarse,
        {
            "train": ["train/aachen/aachen_000000_000019", "train/aachen/aachen_000000_000020"],
            "train_extra": ["train_extra/bonn/bonn_000000_000019", "train_extra/bonn/bonn_000000_000020"],
            "val": ["val/lindau/lindau_000000_000019", "val/lindau/lindau_000000_000020"],
        },
        [0, 1, 2, 18, 255, 255, 255, 255],
    ),
    "voc2012": (voc, {"train": ["2007_000033", "2007_000032"], "val": ["2007_000039"]}, [0, 1, 15, 20, 255, 0, 1, 15]),
    "voc2012-aug": (
        voc_aug,
        {"train": ["2007_000033", "2007_000032"], "val": ["2007_000039"]},
        [0, 1, 15, 20, 255, 0, 1, 15],
    ),
    "sbd": (sbd, {"train": ["2008_000007", "2008_000002"], "val": ["2008_000003"]}, [0, 1, 15, 20, 0, 1, 15, 20]),
    "ade20k": (
        ade20k,
        {"train": ["training/ADE_train_00000001"], "val": ["validation/ADE_val_00000001"]},
        [255, 0, 1, 149, 255, 0, 1, 149],
    ),
    "camvid": (
        camvid,
        {
            "train": ["0001TP_008520", "0006R0_f00930", "0016E5_00390"],
            "val": ["0016E5_07959"],
            "test": ["0001TP_008550", "Seq05VD_f00000"],
        },
        [0, 3, 255, 9, 0, 3, 255, 9],
    ),
    "coco-stuff": (
        coco_stuff,
        {"train": ["train2017/000000000009"], "val": ["val2017/000000000139"]},
        [0, 11, 80, 170, 255, 0, 11, 80],
    ),
    "mapillary-vistas": (
        mapillary,
        {"train": ["training/a_1"], "val": ["validation/b-2"]},
        [0, 13, 64, 255, 0, 13, 64, 255],
    ),
    "mapillary-vistas-v2": (
        mapillary_v2,
        {"train": ["training/a_1"], "val": ["validation/b-2"]},
        [0, 13, 122, 255, 0, 13, 122, 255],
    ),
    "bdd100k": (
        bdd100k,
        {"train": ["train/0a0a0b1a-7c39d841"], "val": ["val/7d2f7975-e0c1c5a7"]},
        [0, 18, 255, 0, 18, 255, 0, 18],
    ),
    "dsb2018": (dsb2018, {"train": ["00ae65", "0a7d30"]}, [1, 0, 0, 0, 0, 0, 1, 0]),
}
CLASSES = {
    "cityscapes": 19,
    "cityscapes-coarse": 19,
    "voc2012": 21,
    "voc2012-aug": 21,
    "sbd": 21,
    "ade20k": 150,
    "camvid": 11,
    "coco-stuff": 171,
    "mapillary-vistas": 65,
    "mapillary-vistas-v2": 123,
    "bdd100k": 19,
    "dsb2018": 2,
}


def made(name: str, root: Path) -> Dataset:
    TREES[name][0](root)
    return open_dataset(f"{name}:{root}")


def test_every_public_data_set_is_here() -> None:
    assert set(TREES) == set(official_names()) == set(CLASSES)


@pytest.mark.parametrize("name", TREES)
def test_a_tree_of_its_layout_is_read_as_its_documentation_says(name: str, tmp_path: Path) -> None:
    dataset = made(name, tmp_path)
    _, splits, columns = TREES[name]
    assert {split: [s.name for s in dataset.split(split)] for split in dataset.splits()} == splits  # type: ignore[attr-defined]
    assert len(dataset.classes) == len(dataset.palette) == CLASSES[name]
    expected = torch.tensor(columns, dtype=torch.uint8).expand(SIZE)
    for split in splits:
        assert torch.equal(dataset.split(split)[0].mask, expected)


def test_anchors_of_the_class_lists() -> None:
    """Where a list shifted by one would show: cityscapesScripts, objectInfo150.txt, labels.txt of COCO-Stuff."""
    city = dict(official("cityscapes").meanings())
    assert (city["road"], city["train"], city["bicycle"]) == (7, 31, 33)
    ade = dict(official("ade20k").meanings())
    assert [ade[name] for name in ("wall", "television", "animal", "flag")] == [1, 90, 127, 150]
    coco = dict(official("coco-stuff").meanings())
    assert [coco[name] for name in ("person", "stop sign", "toothbrush", "banner", "wood")] == [0, 12, 89, 91, 181]
    assert {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}.isdisjoint(coco.values())
    vistas = official("mapillary-vistas").names
    assert (vistas[13], vistas[27], vistas[55]) == ("Road", "Sky", "Car")


def test_segnets_camvid_is_read_with_its_folders(tmp_path: Path) -> None:
    for split, name in (("train", "0001TP_006690"), ("val", "0016E5_07959"), ("test", "0001TP_008550")):
        image(tmp_path / split / f"{name}.png")
        mask(tmp_path / f"{split}annot" / f"{name}.png", 0, 10, 11)
    dataset = open_dataset(f"camvid:{tmp_path}")
    assert dataset.splits() == ("train", "val", "test")
    assert dataset.split("train")[0].mask[0].tolist() == [0, 10, 255, 0, 10, 255, 0, 10]


def test_the_splits_of_camvid_are_segnets(shared: Path, tmp_path: Path) -> None:
    """All 701 names, which the folder in `shared` has in SegNet's splits, in the layout of the original."""
    known = {
        split: {p.stem for p in (shared / "camvid/images" / split).iterdir()} for split in ("train", "val", "test")
    }
    for folder, ending in (("701_StillsRaw_full", ""), ("LabeledApproved_full", "_L")):
        (tmp_path / folder).mkdir()
        for names in known.values():
            for name in names:
                (tmp_path / folder / f"{name}{ending}.png").touch()
    dataset = open_dataset(f"camvid:{tmp_path}")
    for split, names in known.items():
        part = dataset.split(split)
        assert {part.sample_name(i) for i in range(len(part))} == names


def test_classes_are_merged_by_a_small_file(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    merge = tmp_path / "flat.yaml"
    merge.write_text("classes:\n  flat: [road, sidewalk]\n  built: building\nignore: rest\n")
    dataset = open_dataset(f"cityscapes:{tmp_path},classes={merge}")
    assert (dataset.classes, dataset.palette) == (("flat", "built"), ((128, 64, 128), (70, 70, 70)))
    assert dataset.split("train")[0].mask[0].tolist() == [0, 0, 1, 255, 255, 255, 255, 255]
    assert open_dataset(dataset.spec).split("train").fingerprint == dataset.split("train").fingerprint
    whole = open_dataset(f"cityscapes:{tmp_path}").split("train").fingerprint
    assert dataset.split("train").fingerprint != whole
    merge.write_text("classes:\n  flat: [road]\n  built: [building, sidewalk]\nignore: rest\n")
    assert open_dataset(dataset.spec).split("train").fingerprint != dataset.split("train").fingerprint


@pytest.fixture(params=["camvid", "cityscapes"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    return made(request.param, tmp_path)


class TestPublic(DatasetConformance):
    pass


def test_descriptions_are_data_of_one_form() -> None:
    for file in (Path(formats.__file__).parent / "official").glob("*.json"):
        content = json.loads(file.read_text())
        assert content["name"] == file.stem
        assert {"about", "classes", "layout"} <= set(content)


def test_masks_of_voc_go_before_those_of_sbd(tmp_path: Path) -> None:
    voc_with_sbd(tmp_path)
    train = open_dataset(f"voc2012-aug:{tmp_path}").split("train")
    assert [sample.name for sample in train] == ["2007_000033", "2008_000002"]
    assert [sample.mask[0].tolist() for sample in train] == [[0, 1, 15, 20, 255, 0, 1, 15], [0, 0, 5, 0, 0, 5, 0, 0]]
