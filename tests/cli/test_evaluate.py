from collections.abc import Callable
from pathlib import Path

from tests.train.made_up import DATA

from .conftest import Done

Run = Callable[..., Done]
Refused = Callable[..., str]


def test_stdout_is_one_json_document(nasseg: Run, model: Path) -> None:
    done = nasseg("evaluate", model, "--json")
    assert (done.document["data"], done.document["split"], done.document["images"]) == (DATA, "test", 2)
    assert {"miou", "class_iou", "boundary_miou", "class_boundary_iou", "pixel_accuracy"} <= set(done.document)
    assert nasseg("evaluate", "--json", "--split", "train+val", model).document["images"] == 9


def test_people_see_every_class(nasseg: Run, model: Path) -> None:
    done = nasseg("evaluate", model)
    assert done.code == 0
    assert all(name in done.out for name in ("bus lane", "pedestrian", "mean", "pixel accuracy"))


def test_what_cannot_be_evaluated_is_refused(refused: Refused, model: Path, folder: Path, tmp_path: Path) -> None:
    line = refused("evaluate", model, "--data", f"folder:{folder}", "--split", "val")
    assert "has the classes x, y, z, but the model was trained for road, bus lane" in line
    assert "has no split 'dev'" in refused("evaluate", model, "--split", "dev")
    assert "'1,big' must be numbers joined by commas, like 0.5,1,2" in refused("evaluate", model, "--scales", "1,big")
    assert "scales are [0.0], but must be one or more positive" in refused("evaluate", model, "--scales", "0")
    assert "no such file; a run folder must hold one" in refused("evaluate", tmp_path)
    assert "no such file; give a run folder or a model file" in refused("evaluate", tmp_path / "nothing")
    (tmp_path / "bad.safetensors").write_text("hi")
    assert "is not a safetensors file" in refused("evaluate", tmp_path / "bad.safetensors")
