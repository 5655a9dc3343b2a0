import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid data set: train a, b (JPEG, PNG) and val c, 8x12 and 10x6, with grey and palette masks."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for split, name, suffix, size in (
        ("train", "a", "jpg", (8, 12)),
        ("train", "b", "png", (8, 12)),
        ("val", "c", "JPEG", (10, 6)),
    ):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(*size, 3), dtype=np.uint8)).save(
            root / "images" / split / f"{name}.{suffix}"
        )
        mask = Image.fromarray(rng.choice([0, 1, 2, 255], size=size).astype(np.uint8))
        if name == "b":
            mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [0] * 759)
        mask.save(root / "masks" / split / f"{name}.png")
    description = {"classes": ["x", "y", "z"], "palette": [[0, 0, 0], [255, 0, 0], [0, 255, 0]], "ignore_index": 255}
    (root / "dataset.json").write_text(json.dumps(description))
    (root / "splits").mkdir()
    (root / "splits" / "search.txt").write_text("val/c\n\ntrain/a\n")
    return root


@pytest.fixture
def write_mask(folder: Path) -> Callable[..., None]:
    def write(values: object, name: str = "train/a", mode: str | None = None) -> None:
        image = Image.fromarray(np.array(values))
        (image.convert(mode) if mode else image).save(folder / "masks" / f"{name}.png")

    return write
