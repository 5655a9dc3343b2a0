import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from nasseg.train.fit import seeded_network
from nasseg.train.model import save_model
from tests.train.made_up import DATA, provenance, small_architecture

from .conftest import Done

Run = Callable[..., Done]
Refused = Callable[..., str]


def test_stdout_is_one_json_document(nasseg: Run, model: Path) -> None:
    done = nasseg("evaluate", model, "--json")
    assert (done.document["data"], done.document["split"], done.document["images"]) == (DATA, "test", 2)
    assert {"miou", "class_iou", "boundary_miou", "class_boundary_iou", "pixel_accuracy"} <= set(done.document)
    low, high = done.document["miou_interval"]
    assert low <= high
    assert done.document["latency"]["size"] == [32, 64]
    assert nasseg("evaluate", "--json", "--split", "train+val", model).document["images"] == 9


def test_people_see_every_class(nasseg: Run, model: Path) -> None:
    done = nasseg("evaluate", model)
    assert done.code == 0
    assert all(name in done.out for name in ("bus lane", "pedestrian", "mean", "pixel accuracy", "95 % interval"))
    assert " ms for one image of 32x64" in done.err
    assert done.err.splitlines()[-1] == f"next: nasseg predict {model} IMAGES, or nasseg export {model} --format onnx"


def test_without_a_test_split_the_one_for_validation_is_scored(nasseg: Run, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "best.safetensors"
    save_model(file, seeded_network(small_architecture(3), 0), provenance(f"folder:{folder}"))
    done = nasseg("evaluate", file, "--json")
    assert (done.document["split"], done.document["images"]) == ("val", 1)
    assert "there is no split test: scoring val, on which the run was validated (--split)" in done.err.splitlines()


def test_the_confusion_matrix_is_drawn(nasseg: Run, refused: Refused, model: Path, tmp_path: Path) -> None:
    done = nasseg("evaluate", model, "--confusion", tmp_path / "confusion.png", "--window", "24x32")
    assert f"drew {tmp_path / 'confusion.png'}" in done.err
    assert " ms for one window of 24x32" in done.err
    with Image.open(tmp_path / "confusion.png") as picture:
        assert min(picture.size) > 600
    assert "must end in .png or .svg" in refused("evaluate", model, "--confusion", tmp_path / "confusion.gif")
    (tmp_path / "taken.png").mkdir()
    done = nasseg("evaluate", model, "--confusion", tmp_path / "taken.png", "--json")
    assert (done.code, done.document["images"]) == (2, 2)  # what took long is told, wherever the picture goes


def test_names_of_classes_are_shown_as_they_are(nasseg: Run, folder: Path, tmp_path: Path) -> None:
    path, file = folder / "dataset.json", tmp_path / "best.safetensors"
    classes = ["[void]", "[/x]", "z"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "classes": classes}))
    save_model(file, seeded_network(small_architecture(3), 0), provenance(f"folder:{folder}"))
    done = nasseg("evaluate", file)
    assert done.code == 0
    assert all(f"│ {name} " in done.out for name in classes)


def test_an_exported_file_is_scored_like_the_run_that_it_came_from(nasseg: Run, model: Path) -> None:
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    exported = nasseg("export", model, "--normalise", "--argmax", "--json").document
    assert exported["file"] == str(model / "model.onnx")
    assert [agreement["size"] for agreement in exported["agreements"]] == [[32, 64]]
    found, expected = nasseg("evaluate", exported["file"], "--json"), nasseg("evaluate", model, "--json")
    assert found.document["miou"] == pytest.approx(expected.document["miou"], abs=0.02)
    assert found.document["latency"]["backend"] == "onnxruntime"


def test_what_cannot_be_evaluated_is_refused(refused: Refused, model: Path, folder: Path, tmp_path: Path) -> None:
    line = refused("evaluate", model, "--data", f"folder:{folder}", "--split", "val")
    assert "has the classes x, y, z, but the model was trained for road, bus lane" in line
    assert "has no split 'dev'" in refused("evaluate", model, "--split", "dev")
    assert "'1,big' must be numbers joined by commas, like 0.5,1,2" in refused("evaluate", model, "--scales", "1,big")
    for scale in ("0.0", "inf", "nan"):
        line = f"scales are [{scale}], but must be one or more positive"
        assert line in refused("evaluate", model, "--scales", scale)
    assert "no such file; a run folder must hold one" in refused("evaluate", tmp_path)
    assert "no such file; give a run folder or a model file" in refused("evaluate", tmp_path / "nothing")
    (tmp_path / "bad.safetensors").write_text("hi")
    assert "is not a safetensors file" in refused("evaluate", tmp_path / "bad.safetensors")
