"""Data from someone else: sizes are checked before they are allocated, and no name leads out of the folder."""

import io
import json
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from nasseg.data import Block, DataError, FeatureCache, FolderDataset
from nasseg.data.folder import read_image
from nasseg.foreign import MAX_IMAGE_PIXELS


def png_that_claims(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    struct.pack_into(">II", data, 16, width, height)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize(
    ("width", "height", "line"),
    [
        (6325, 6325, f"is 6325x6325, but must have at most {MAX_IMAGE_PIXELS:,} pixels, and 65,536 per side"),
        (12_000, 12_000, f"has over {MAX_IMAGE_PIXELS:,} pixels, the most that are read"),  # Pillow warns of this
        (60_000, 60_000, f"has over {MAX_IMAGE_PIXELS:,} pixels, the most that are read"),  # and refuses this
        (70_000, 1, "is 1x70000, but must have at most"),
    ],
)
def test_a_decompression_bomb_is_not_decompressed(width: int, height: int, line: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_that_claims(width, height))
    with pytest.raises(DataError, match=r"a\.png") as caught:
        read_image(tmp_path / "a.png")
    assert line in str(caught.value)


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"GIF89a\1\0\1\0\0\0\0;"])
def test_other_formats_are_not_opened_whatever_the_name(content: bytes, tmp_path: Path) -> None:
    """Pillow runs Ghostscript for the first."""
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png (is not a readable image|cannot be read)"):
        read_image(tmp_path / "a.png")


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    (folder / "images/train/a.jpg").unlink()
    os.mkfifo(folder / "images/train/a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg is no regular file"):
        FolderDataset(folder).split("train").check()


@pytest.mark.parametrize("line", ["../../elsewhere/a", "/etc/passwd", "train/../../a", "..", "a/" * 150 + "b", "\x00"])
def test_a_list_names_images_of_the_folder_only(folder: Path, line: str) -> None:
    outside = folder.parent / "elsewhere"
    outside.mkdir()
    (outside / "a.jpg").write_bytes((folder / "images/train/a.jpg").read_bytes())
    (folder / "splits/search.txt").write_text(f"train/a\n{line}\n")
    with pytest.raises(DataError, match=r"search\.txt line 2: .* (leads out of|is not an image in) ") as caught:
        FolderDataset(folder).split("search")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"classes": NaN}', b'{"classes": [' + b'"a",' * 500_000])
def test_a_description_is_read_within_the_limits(folder: Path, content: bytes) -> None:
    (folder / "dataset.json").write_bytes(content)
    with pytest.raises(DataError, match=r"dataset\.json "):
        FolderDataset(folder)


def test_names_that_would_steer_a_terminal_are_refused(folder: Path) -> None:
    description = json.loads((folder / "dataset.json").read_text())
    description["classes"][0] = "\x1b[2J"
    (folder / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(DataError, match=r"classes\.names\[0\]: '\\x1b\[2J' holds characters that cannot be printed"):
        FolderDataset(folder)


@pytest.mark.parametrize(
    "change", [{"samples": 10**12}, {"blocks": 2}, {"shapes": {}}, {"shapes": {"a": ["x"]}}, {"views": -1}, {}]
)
def test_a_damaged_index_of_features_is_told(tmp_path: Path, change: dict[str, object]) -> None:
    import torch

    def compute(block: Block) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        return {"x": torch.zeros(3, 2, 4, 8)}, torch.zeros(3, 8, 16)

    cache = FeatureCache.open_or_fill(tmp_path, {"seed": 0}, 1, 3, 3, compute)
    index = cache.folder / "index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), **change}) if change else "{")
    with pytest.raises(ValueError, match=rf"^{cache.folder} is damaged.*; remove it, and the features are"):
        FeatureCache.open_or_fill(tmp_path, {"seed": 0}, 1, 3, 3, compute)
