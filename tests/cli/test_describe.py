import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nasseg.graph import load, save
from tests.train.made_up import small_architecture

from .conftest import Done

Run = Callable[..., Done]
Refused = Callable[..., str]


def test_json_has_the_fields_that_programs_read(nasseg: Run, arch: Path) -> None:
    document = nasseg("describe", arch, "--size", "32x64", "--json").document
    assert {"name", "params", "params_training", "madds", "size", "classes", "stages", "nodes"} <= set(document)
    assert (document["name"], document["size"], document["classes"]) == ("small", [32, 64], 13)
    assert list(document["stages"]) == ["backbone", "head"]
    assert set(document["stages"]["backbone"]) == {"params", "weights", "madds"}
    fields = {"name", "op", "inputs", "params", "weights", "madds", "shape"}
    assert all(set(node) == fields for node in document["nodes"])
    # conv 3·8·9 with norm 2·8; conv 8·8 with norm 2·8; logits 8·13 + 13
    assert document["params"] == 216 + 16 + 64 + 16 + 104 + 13
    assert document["params_training"] == document["params"] + 104 + 13
    assert document["madds"] == 16 * 32 * (216 + 64 + 104)


def test_people_see_the_same_numbers(nasseg: Run, arch: Path) -> None:
    done = nasseg("describe", arch, "--size", "32x64")
    assert "429 parameters (546 in training)" in done.out
    assert "at 32x64, 13 classes" in done.out


@pytest.mark.parametrize(
    ("arch", "classes", "params"),
    [
        ("fcn8s", 21, 134_489_759),
        ("unet:in_channels=1,norm=none,bias=true", 2, 31_030_658),
        ("stdc1-classifier", None, 8_441_504),
        ("deeplabv3plus-resnet50:separable=false", 19, 40_351_667),
    ],
)
def test_baselines_have_the_papers_parameters(nasseg: Run, arch: str, classes: int | None, params: int) -> None:
    options = () if classes is None else ("--classes", classes)
    assert nasseg("describe", arch, *options, "--size", "64x64", "--json").document["params"] == params


def test_what_cannot_be_described_is_refused(refused: Refused, arch: Path, tmp_path: Path) -> None:
    assert "size '12' must be HEIGHTxWIDTH" in refused("describe", arch, "--size", "12")
    assert "size '0x3' must be" in refused("describe", arch, "--size", "0x3")
    assert "unknown architecture 'unett'; give a file such as best.json, or one of:" in refused("describe", "unett")
    assert "unknown option 'depth'; known: in_channels, norm" in refused("describe", "unet:depth=3")
    assert "norm is 'group', but must be" in refused("describe", "unet:norm=group")
    assert "option 'norm' must be KEY=VALUE" in refused("describe", "unet:norm")
    assert "has 13 classes; --classes is for networks given by name" in refused("describe", arch, "--classes", 3)
    assert "holds neither best.json nor architecture.json" in refused("describe", tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('"op": "resize"', '"op": "grow"', "op.op is 'grow', but must be one of"),
        ('"outputs"', '"results"', "outputs is missing"),
        ('"format": "nasseg.architecture/1"', '"format": "x"', "format is 'x', but must be 'nasseg.architecture/1'"),
        ("{", "[", "is not JSON"),
    ],
)
def test_a_broken_file_is_refused(refused: Refused, arch: Path, old: str, new: str, line: str) -> None:
    arch.write_text(arch.read_text().replace(old, new, 1))
    message = refused("describe", arch)
    assert message.startswith(str(arch))
    assert line in message


def test_a_plain_best_json_is_that_of_the_newest_search(
    nasseg: Run, arch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for age, (name, content) in enumerate([("new", arch.read_text()), ("old", "{}")]):
        path = Path("runs", name, "best.json")
        path.parent.mkdir(parents=True)
        path.write_text(content)
        os.utime(path, (10**9 - age, 10**9 - age))
    done = nasseg("describe", "best.json", "--json")
    assert done.code == 0
    assert f"best.json: that of the newest search, {Path('runs', 'new', 'best.json')}" in done.err
    assert done.document["key"] == load(arch).key
    Path("best.json").write_text("{}")
    assert nasseg("describe", "best.json").code == 2


def test_run_folders_are_described_by_the_architecture_in_them(nasseg: Run, refused: Refused, tmp_path: Path) -> None:
    save(small_architecture(), tmp_path / "architecture.json")
    (tmp_path / "model.safetensors").touch()
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert nasseg("describe", path, "--size", "32x64", "--json").document["name"] == "small"
    (tmp_path / "architecture.json").rename(tmp_path / "best.json")
    assert nasseg("describe", tmp_path, "--size", "32x64", "--json").document["name"] == "small"
    (tmp_path / "best.json").unlink()
    assert "holds neither best.json nor architecture.json" in refused("describe", tmp_path)
