from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import Done

Run = Callable[..., Done]
Refused = Callable[..., str]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, size in (("a.png", (20, 31, 3)), ("b.jpg", (33, 40, 3))):
        Image.fromarray(np.random.default_rng(0).integers(256, size=size, dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").touch()
    return folder


def test_a_folder_of_images_of_any_size(nasseg: Run, model: Path, images: Path, tmp_path: Path) -> None:
    done = nasseg("predict", model, images, "--out", tmp_path / "out" / "masks")
    assert done.err == f"2 images segmented into {tmp_path / 'out' / 'masks'}\n"
    names = {path.name for path in (tmp_path / "out" / "masks").iterdir()}
    assert names == {"a.png", "a-overlay.jpg", "b.png", "b-overlay.jpg"}
    with Image.open(tmp_path / "out" / "masks" / "a.png") as mask:
        assert (mask.mode, mask.size) == ("P", (31, 20))


def test_what_cannot_be_segmented_is_refused(refused: Refused, model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "no such file; give images" in refused("predict", model, images / "c.png", "--out", out)
    assert "no images" in refused("predict", model, model, "--out", out)
    assert "is not a readable image" in refused("predict", model, images / "notes.txt", "--out", out)
    (images / "a.png").write_bytes((images / "a.png").read_bytes()[:-400])
    assert "a.png cannot be read" in refused("predict", model, images / "a.png", "--out", out)
    assert not out.exists()


def test_no_result_overwrites_another_or_an_image(refused: Refused, model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.png").write_bytes((images / "a.png").read_bytes())
    line = refused("predict", model, images, tmp_path / "more", "--out", tmp_path / "out")
    assert "would both give" in line
    assert "would be overwritten by its own result" in refused("predict", model, images / "a.png", "--out", images)
