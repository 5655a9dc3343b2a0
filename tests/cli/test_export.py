from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Done

Run = Callable[..., Done]
Refused = Callable[..., str]


def test_a_program_of_pytorch_lies_beside_the_run_with_its_card(nasseg: Run, model: Path) -> None:
    done = nasseg("export", model, "--format", "torch", "--images", "any")
    assert (done.code, done.out) == (0, "")
    lines = done.err.splitlines()
    assert lines[0] == "exporting small as torch.export's program"
    assert lines[1].startswith("against PyTorch, 32x64, 3 images: logits differ by ")
    assert lines[2].startswith("against PyTorch, 31x63, 3 images: logits differ by ")
    assert [line.partition(" ms: ")[2].partition(",")[0] for line in lines[3:5]] == ["PyTorch", "torch"]
    assert lines[5].startswith(f"wrote {model / 'model.pt2'} (")
    assert "one image of any size" in (model / "model.md").read_text()


def test_a_format_that_rounds_is_scored_where_it_takes_the_images(nasseg: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "small.pt2"
    document = nasseg("export", model, "--format", "torch-bfloat16", "--out", out, "--json").document
    assert (document["file"], document["card"]) == (str(out), str(out.with_suffix(".md")))
    assert set(document["miou"]) == {"PyTorch, val", "torch-bfloat16, val"}
    other = nasseg("export", model, "--format", "torch-bfloat16", "--size", "48x48", "--out", out)
    assert "val has images of other sizes than 48x48, all that the file takes (--images any)" in other.err


def test_a_file_is_named_after_its_model_and_shows_what_can_be_done_with_it(nasseg: Run, model: Path) -> None:
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    best = (model / "model.safetensors").rename(model / "best.safetensors")
    for size, evaluate in (("32x64", f"nasseg evaluate {model / 'best.onnx'}, or "), ("48x48", "")):
        done = nasseg("export", best, "--size", size)
        assert done.err.splitlines()[-1] == f"next: {evaluate}nasseg benchmark {model / 'best.onnx'}"
    assert (model / "best.md").is_file()


def test_what_cannot_be_exported_is_refused(refused: Refused, model: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "model.onnx"
    assert "format is 'tflite', but must be one of onnx" in refused("export", model, "--format", "tflite")
    assert "size '12' must be HEIGHTxWIDTH" in refused("export", model, "--size", "12")
    assert "must be greater than or equal to 32" in refused("export", model, "--size", "8x64")
    assert "must end in .pt2 for format torch" in refused("export", model, "--format", "torch", "--out", out)
    assert "has other classes than the model" in refused("export", model, "--data", f"folder:{folder}", "--out", out)
    assert "is exported already" in refused("export", out)
    assert "no such file; a run folder must hold one" in refused("export", tmp_path)
    assert not out.parent.exists()


def test_a_file_that_computes_something_else_is_not_written(
    refused: Refused, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nasseg.export.files import ProgramNetwork

    right = ProgramNetwork.run
    monkeypatch.setattr(ProgramNetwork, "run", lambda self, image: right(self, image) + 0.1)
    line = refused("export", model, "--format", "torch", "--out", tmp_path / "wrong.pt2")
    assert "the file does not compute what PyTorch does: 32x64, 3 images: logits differ by 0.1" in line
    assert not (tmp_path / "wrong.pt2").exists()
