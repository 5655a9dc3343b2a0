"""The `nasseg` command in this process, and a small trained model and a folder of images for it."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from nasseg.cli import main
from nasseg.graph import save
from nasseg.train.fit import seeded_network
from nasseg.train.model import MODEL_FILE, save_model
from tests.train.made_up import provenance, small_architecture


class Done(NamedTuple):
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Commands handle Ctrl-C their own way; tests keep theirs."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def nasseg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run `nasseg ARGUMENTS…`."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["nasseg", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def refused(nasseg: Callable[..., Done]) -> Callable[..., str]:
    """Run `nasseg ARGUMENTS…`, which must end as a user's mistake does, and give its one line."""

    def run(*arguments: object) -> str:
        done = nasseg(*arguments)
        line = done.err.splitlines()[-1]
        assert (done.code, done.out) == (2, "")
        assert line.startswith("nasseg: ")
        assert "Traceback" not in done.err
        return line.removeprefix("nasseg: ")

    return run


@pytest.fixture
def arch(tmp_path: Path) -> Path:
    save(small_architecture(), tmp_path / "small.json")
    return tmp_path / "small.json"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A run folder with a model of the street scenes, untrained."""
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model" / MODEL_FILE, seeded_network(small_architecture(), 0), provenance())
    return tmp_path / "model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid data set of 3 classes: train/a, train/b and val/c, 32x48."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        for kind, suffix, values, shape in (("images", "jpg", 256, (32, 48, 3)), ("masks", "png", 3, (32, 48))):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(values, size=shape, dtype=np.uint8)
            Image.fromarray(pixels).save(root / kind / split / f"{name}.{suffix}")
    description = {"classes": ["x", "y", "z"], "palette": [[0, 0, 0], [255, 0, 0], [0, 255, 0]], "ignore_index": 255}
    (root / "dataset.json").write_text(json.dumps(description))
    return root
