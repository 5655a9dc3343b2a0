import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from nasseg.jobs.context import Problem
from nasseg.jobs.worker import Worker
from nasseg.planning.job import Job
from nasseg.planning.options import SearchOptions
from tests.jobs.tiny import SPACE, tiny_config


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set with an image each to train and to validate on."""
    for split in ("train", "val"):
        for kind, mode in (("images", "RGB"), ("masks", "L")):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
            Image.new(mode, (48, 32)).save(tmp_path / "data" / kind / split / "a.png")
    description = {"classes": ["x", "y"], "palette": [[0, 0, 0], [255, 0, 0]], "ignore_index": 255}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(description))
    return tmp_path / "data"


@pytest.mark.parametrize("changed", ["images/val/a.png", "masks/train/a.png", "weights.safetensors"])
def test_data_and_weights_that_change_in_mid_search_are_refused(data: Path, changed: str) -> None:
    weights = data / "weights.safetensors"
    safetensors.torch.save_file({"backbone.stem.conv.weight": torch.zeros(1)}, weights)
    options = SearchOptions(space=SPACE, data=f"folder:{data}", weights=str(weights), device="cpu")
    began = Problem(options).fingerprints
    Problem(options).require_unchanged(began)
    Problem(options).require_unchanged(None)
    if changed == weights.name:
        safetensors.torch.save_file({"backbone.stem.conv.weight": torch.ones(1)}, weights)
        what = f"--weights {weights}"
    else:
        status = (data / changed).stat()
        os.utime(data / changed, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        what = f"split '{Path(changed).parts[1]}' of folder:{data}"
    with pytest.raises(ValueError, match="has changed since the search began") as caught:
        Problem(options).require_unchanged(began)
    assert str(caught.value).startswith(what)
    known = {"data": options.data, "weights": options.weights, "fingerprints": began}
    with pytest.raises(ValueError, match="has changed since the search began"):
        Worker.open(tiny_config().model_copy(update=known), data)


def test_a_result_of_images_that_changed_meanwhile_is_not_returned(data: Path, tmp_path: Path) -> None:
    options = SearchOptions(space=SPACE, data=f"folder:{data}", device="cpu")
    problem = Problem(options)
    config = tiny_config().model_copy(update={"data": options.data, "fingerprints": problem.fingerprints})
    (tmp_path / "run").mkdir()
    worker = Worker.open(config, tmp_path / "run")
    prepare = Job(
        number=1,
        task="prepare",
        candidates=(problem.candidate(problem.references["plain"]),),
        seed=0,
        start_step=0,
        stop_step=4,
    )
    assert worker.run(prepare).outcomes[0].status == "ok"
    os.utime(data / "images" / "train" / "a.png", ns=(0, 0))
    with pytest.raises(ValueError, match=r"split 'train' of .* has changed since the search began"):
        worker.run(prepare)
