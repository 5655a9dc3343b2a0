import os
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from nasseg.data import FolderDataset, open_dataset
from nasseg.data import decoded as module
from nasseg.data.dataset import DataError, Sample
from nasseg.data.decoded import Decoded, decoded


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nasseg" / "images"


@pytest.mark.parametrize("readers", [1, 3])
def test_samples_are_those_of_the_split(folder: Path, readers: int) -> None:
    split = FolderDataset(folder).split("train+val")  # of two sizes
    kept = decoded(split, readers)
    assert isinstance(kept, Decoded)
    assert (len(kept), kept.name, kept.fingerprint) == (len(split), split.name, split.fingerprint)
    for index in range(len(split)):
        sample, expected = kept[index], split[index]
        assert sample.name == expected.name
        assert kept.size(index) == tuple(expected.mask.shape)
        assert torch.equal(sample.image, expected.image)
        assert torch.equal(sample.mask, expected.mask)


def test_a_second_run_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    split = open_dataset("streets:size=32x48,train=4").split("train")
    first = decoded(split)[2]

    def fails(self: object, index: int) -> Sample:
        raise AssertionError("decoded again")

    kept = decoded(split)
    monkeypatch.setattr(type(split), "__getitem__", fails)
    assert torch.equal(kept[2].image, first.image)


def test_other_files_are_decoded_anew(folder: Path) -> None:
    before = decoded(FolderDataset(folder).split("train"))[0]
    Image.new("RGB", (12, 8), "red").save(folder / "images/train/a.jpg")
    assert not torch.equal(decoded(FolderDataset(folder).split("train"))[0].image, before.image)


def test_a_small_disk_and_a_bad_file_leave_nothing(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = FolderDataset(folder).split("train")
    monkeypatch.setattr(module, "free_disk_bytes", lambda folder: 100)
    assert decoded(split) is split
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent.parent))
    monkeypatch.setattr(type(split), "typical_size", lambda self: (10, 12))
    (folder / "masks/train/b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.png"):
        decoded(split)
    assert [path.suffix for path in cache.iterdir()] in ([], [".lock"])


def test_what_was_not_used_for_long_is_removed(cache: Path) -> None:
    for number in (2, 3):
        decoded(open_dataset(f"streets:size=32x48,train={number}").split("train"))
    assert len(list(cache.glob("*/index.json"))) == 2
    for index in cache.glob("*/index.json"):
        os.utime(index, (time.time() - 31 * 86400,) * 2)
    decoded(open_dataset("streets:size=32x48,train=2").split("train"))  # used again
    decoded(open_dataset("streets:size=32x48,train=4").split("train"))
    assert len(list(cache.glob("*/index.json"))) == 2


def test_a_cache_that_cannot_be_written_is_done_without(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.parent.parent.write_text("no folder")
    split = open_dataset("streets:size=32x48,train=2").split("train")
    assert decoded(split) is split
    assert "images are decoded each time" in caplog.text


def test_what_is_decoded_is_used_however_full_the_disk_is_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    split = open_dataset("streets:size=32x48,train=2").split("train")
    decoded(split)
    monkeypatch.setattr(module, "free_disk_bytes", lambda folder: 100)
    assert isinstance(decoded(split), Decoded)


@pytest.mark.parametrize(
    ("name", "content"),
    [("index.json", b""), ("pixels.bin", b""), ("pixels.bin", b"\0" * 100)],
    ids=["no index", "no pixels", "few pixels"],
)
def test_decoded_images_that_are_damaged_are_named_with_the_fix(cache: Path, name: str, content: bytes) -> None:
    split = open_dataset("streets:size=32x48,train=2").split("train")
    decoded(split)
    (index,) = cache.glob("*/index.json")
    index.with_name(name).write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged .*; remove it, and the images are decoded again") as caught:
        decoded(split)
    assert str(caught.value).startswith(str(index.parent))


def test_decoded_images_are_on_the_disk_with_their_index(monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_size), sync(file)))
    decoded(open_dataset("streets:size=32x48,train=2").split("train"))
    pixels, index = synced
    assert pixels == 2 * 32 * 48 * 4
    assert index > 0
