import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from nasseg import foreign
from nasseg.data import DataError
from nasseg.data.formats.images import MaskFile
from nasseg.data.formats.matlab import read_segmentation

MASK = np.random.default_rng(0).integers(21, size=(7, 11), dtype=np.uint8)


def saved(path: Path, compressed: bool = True, **content: object) -> Path:
    savemat(path, content, do_compression=compressed)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32])
def test_the_mask_in_the_struct_is_read(tmp_path: Path, compressed: bool, kind: type) -> None:
    struct_ = {"Present": np.array([1.0, 2.0]), "Segmentation": MASK.astype(kind), "Boundaries": "none"}
    file = saved(tmp_path / "a.mat", compressed, before=np.eye(3), GTcls=struct_, after=1)
    assert np.array_equal(read_segmentation(file), MASK)
    read = MaskFile(file)
    assert read.size == (7, 11)
    assert read.colours is None
    assert np.array_equal(read.indices, MASK)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 1)])
def test_small_masks_are_stored_in_their_tag(tmp_path: Path, size: tuple[int, int]) -> None:
    file = saved(tmp_path / "a.mat", GTcls={"Segmentation": MASK[: size[0], : size[1]]})
    assert np.array_equal(read_segmentation(file), MASK[: size[0], : size[1]])


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ({"GTinst": {"Segmentation": MASK}}, "it has no such struct"),
        ({"GTcls": MASK}, "it has no such struct"),
        ({"GTcls": {"Boundaries": MASK}}, "it has no such field"),
        ({"GTcls": {"Segmentation": MASK + 0.5}}, "it does not hold integers"),
        ({"GTcls": {"Segmentation": MASK[..., None] + MASK[:, 0]}}, "it is 7x11x7, but must have at most"),
    ],
)
def test_others_are_refused(tmp_path: Path, content: dict[str, object], rule: str) -> None:
    file = saved(tmp_path / "a.mat", **content)
    with pytest.raises(DataError, match=r"a\.mat is no MATLAB file with GTcls\.Segmentation: ") as refused:
        read_segmentation(file)
    assert rule in str(refused.value)


def test_limits_and_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(tmp_path / "a.mat", GTcls={"Segmentation": MASK})
    content = file.read_bytes()
    (kind, size), packed = struct.unpack("<II", content[128:136]), content[136:]
    unpacked = zlib.decompress(packed)
    assert (kind, size) == (15, len(packed))
    for end in (0, 100, 128, 132, 140, len(content) - 5):
        file.write_bytes(content[:end])
        with pytest.raises(DataError, match="is no MATLAB file"):
            read_segmentation(file)
    for dimensions in ((-7, 11), (7, 1 << 30), (70, 110)):
        found = struct.pack("<ii", 7, 11)
        bomb = zlib.compress(unpacked.replace(found, struct.pack("<ii", *dimensions)))
        file.write_bytes(content[:128] + struct.pack("<II", 15, len(bomb)) + bomb)
        with pytest.raises(DataError, match="is no MATLAB file"):
            read_segmentation(file)
    saved(file, **{f"x{number}": number for number in range(17)}, GTcls={"Segmentation": MASK})
    with pytest.raises(DataError, match="it has over 16 parts"):
        read_segmentation(file)
    monkeypatch.setattr("nasseg.data.formats.matlab.MAX_MATLAB_BYTES", 1000)
    saved(file, GTcls={"Segmentation": np.zeros((400, 400), np.uint8)})
    with pytest.raises(DataError, match=r"it unpacks to over 1,000 bytes"):
        read_segmentation(file)
    monkeypatch.setattr("nasseg.data.formats.matlab.MAX_MATLAB_BYTES", 10)
    with pytest.raises(DataError, match="but must have at most 10"):
        read_segmentation(file)
    assert foreign.MAX_MATLAB_BYTES > foreign.MAX_IMAGE_PIXELS
