import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nasseg.train.fit import seeded_network
from nasseg.train.model import save_model
from nasseg.train.provenance import Provenance
from tests.train.made_up import provenance, small_architecture

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
    assert done.err == f"2 files segmented into {tmp_path / 'out' / 'masks'}\n"
    names = {path.name for path in (tmp_path / "out" / "masks").iterdir()}
    assert names == {"a.png", "a-overlay.jpg", "b.png", "b-overlay.jpg", "legend.png"}
    with Image.open(tmp_path / "out" / "masks" / "a.png") as mask:
        assert (mask.mode, mask.size) == ("P", (31, 20))


def test_what_cannot_be_segmented_is_refused(refused: Refused, model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "no such file; give images" in refused("predict", model, images / "c.png", "--out", out)
    assert "no images or videos" in refused("predict", model, model, "--out", out)
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
    (images / "a.png").rename(images / "b-overlay.jpg")
    line = refused("predict", model, images, "--out", images)
    assert line.startswith(f"{images / 'b-overlay.jpg'} would be overwritten by the result of {images / 'b.jpg'}")
    (images / "b.jpg").rename(images / "legend.jpg")
    line = refused("predict", model, images, "--out", tmp_path / "out")
    assert line.startswith(f"{images / 'legend.jpg'} would give {tmp_path / 'out' / 'legend.png'}, where the colours")
    assert not (tmp_path / "out").exists()


def test_folders_below_other_formats_and_turned_photos(nasseg: Run, model: Path, images: Path, tmp_path: Path) -> None:
    (images / "street" / ".hidden").mkdir(parents=True)
    pixels = np.random.default_rng(1).integers(256, size=(33, 40, 3), dtype=np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    Image.fromarray(pixels).save(images / "street" / "c.webp", lossless=True)
    Image.fromarray(pixels).save(images / "street" / "d.TIF")
    Image.fromarray(pixels).save(images / "street" / "a.bmp")
    Image.fromarray(pixels).save(images / "street" / ".hidden" / "e.png")
    Image.fromarray(pixels).save(images / "street" / "f.jpg", exif=turned, quality=95)
    nasseg("predict", model, images, "--out", tmp_path / "out", "--scales", "0.5,1", "--flip", "--window", "32x32")
    masks = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*.png")}
    assert set(masks) == {"a.png", "b.png", *(f"street/{name}.png" for name in "cdaf"), "legend.png"}
    found = {}
    for name in "cdaf":
        with Image.open(masks[f"street/{name}.png"]) as mask:
            found[name] = np.asarray(mask)
    assert found["f"].shape == (40, 33)
    assert found["c"].shape == (33, 40)
    assert np.array_equal(found["c"], found["d"])
    assert np.array_equal(found["c"], found["a"])


def test_label_images_as_cityscapes_takes_them(nasseg: Run, refused: Refused, images: Path, tmp_path: Path) -> None:
    architecture = small_architecture(2)
    info = provenance().data.model_copy(update={"classes": ("road", "car"), "palette": ((0, 0, 0), (1, 1, 1))})
    save_model(tmp_path / "city.safetensors", seeded_network(architecture, 0), Provenance(data=info))
    nasseg("predict", tmp_path / "city.safetensors", images, "--out", tmp_path / "out", "--submission", "cityscapes")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "b.png"}
    with Image.open(tmp_path / "out" / "a.png") as labels:
        assert (labels.mode, labels.size) == ("L", (31, 20))
        assert set(np.unique(np.asarray(labels))) <= {7, 26}
    save_model(tmp_path / "streets.safetensors", seeded_network(small_architecture(), 0), provenance())
    line = refused("predict", tmp_path / "streets.safetensors", images, "--submission", "cityscapes")
    assert "Cityscapes has no class 'bus lane'" in line


def test_every_frame_of_a_video(nasseg: Run, refused: Refused, model: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs the extra nasseg[video]")
    with av.open(str(tmp_path / "drive.mp4"), "w") as made:
        stream = made.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 64, 32
        for level in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((32, 64, 3), 40 * level, np.uint8), format="rgb24")
            for packet in [*stream.encode(frame), *(stream.encode() if level == 4 else [])]:
                made.mux(packet)
    assert nasseg("predict", model, tmp_path / "drive.mp4", "--out", tmp_path / "out").code == 0
    with av.open(str(tmp_path / "out" / "drive-overlay.mp4")) as found:
        frames = list(found.decode(video=0))
        assert (len(frames), frames[0].width, frames[0].height) == (5, 64, 32)
        assert found.streams.video[0].average_rate == 10
    (tmp_path / "bad.mp4").write_text("no video")
    assert "is not a readable video" in refused("predict", model, tmp_path / "bad.mp4", "--out", tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_missing_package_for_videos_is_named(
    refused: Refused, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "drive.mp4").touch()
    assert "pip install 'nasseg[video]'" in refused("predict", model, tmp_path / "drive.mp4", "--out", tmp_path / "out")
