import json
from pathlib import Path
from typing import Any

import pytest

from nasseg.graph import Architecture, Builder, load, save, write_atomically
from nasseg.ops import OPS, Resize, TransposedConv, conv1x1, logits1x1


@pytest.fixture
def architecture() -> Architecture:
    g = Builder("tiny")
    image = g.input()
    x = g.add("backbone.stem", conv1x1(8), image)
    up = g.add("backbone.up", TransposedConv(out_channels=4), x)
    logits = g.add("head.logits", logits1x1(3), up)
    built = g.build(g.add("head.upsample", Resize(), logits, image), training_outputs=(up,))
    return built.replace(space="dpc", choice={"branches": [{"rate": [1, 6]}]}, provenance={"miou": 0.5, "seed": 1})


def test_a_file_holds_all_of_it(architecture: Architecture, tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    assert architecture.key
    save(architecture, path)
    loaded = load(str(path))
    assert loaded == architecture
    assert loaded.key == architecture.key
    save(loaded, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert json.loads(path.read_text())["format"] == "nasseg.architecture/1"


def test_every_field_of_an_operator_is_written(architecture: Architecture, tmp_path: Path) -> None:
    save(architecture, tmp_path / "best.json")
    nodes = json.loads((tmp_path / "best.json").read_text())["nodes"]
    assert nodes[1]["op"] == conv1x1(8).to_dict()
    assert nodes[1]["op"]["rate"] == [1, 1]


def test_missing_files_and_folders_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^.*/none\.json: no such file; give a best\.json, or a baseline's name$"):
        load(tmp_path / "none.json")
    with pytest.raises(ValueError, match=rf"^{tmp_path} is a folder, but must be a file, such as .*/best\.json$"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1]", "format is 'list', but must be 'nasseg.architecture/1'"),
        (b"{}", "format is None, but must be 'nasseg.architecture/1'"),
        (b'{"format": "other/2"}', "format is 'other/2', but must be 'nasseg.architecture/1'"),
    ],
)
def test_other_content_is_refused(content: bytes, line: str, tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="best") as caught:
        load(path)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


MISSING = object()


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (["outputs"], MISSING, "outputs is missing"),
        (["outputs"], [], "outputs is [], but must have at least 1 item after validation, not 0"),
        (["nodes", 1, "op"], MISSING, "nodes[1].op is missing"),
        (["nodes", 1, "op", "op"], "konv", f"nodes[1].op.op is 'konv', but must be one of {', '.join(OPS)}"),
        (["nodes", 1, "op", "op"], MISSING, "nodes[1].op.op is missing"),
        (
            ["nodes", 1, "op", "kernel"],
            "big",
            "nodes[1].op.kernel is 'big', but must be a valid integer, unable to parse string as an integer",
        ),
        (["nodes", 1, "op", "kernel"], 0, "nodes[1].op.kernel is 0, but must be greater than or equal to 1"),
        (["nodes", 1, "op", "rate"], [1], "nodes[1].op.rate[1] is missing"),
        (["nodes", 1, "op", "norm"], "layer", "nodes[1].op.norm is 'layer', but must be 'batch', 'batch_1e-3'"),
        (["nodes", 1, "op", "groups"], 2, "node 'backbone.stem': groups is 2, but must divide the input's 3 and"),
        (["nodes", 1, "colour"], "red", "nodes[1].colour is not a known field"),
        (
            ["nodes", 1, "inputs"],
            ["nothing"],
            "node 'backbone.stem' has the input 'nothing', but no node has that name",
        ),
        (["nodes"], 7, "nodes is 7, but must be a valid tuple"),
    ],
)
def test_a_wrong_field_is_named(
    architecture: Architecture, path: list[Any], value: object, line: str, tmp_path: Path
) -> None:
    data = architecture.model_dump(mode="json")
    place: Any = data
    for part in path[:-1]:
        place = place[part]
    if value is MISSING:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    file = tmp_path / "best.json"
    file.write_text(json.dumps(data))
    with pytest.raises(ValueError, match="best") as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: {line}")
    assert "\n" not in str(caught.value)


def test_failed_writes_leave_the_old_content_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "best.json"
    write_atomically(path, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["best.json"]
    assert path.read_text() == "old"


def test_writes_replace_and_can_be_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    write_atomically(path, "old")
    write_atomically(path, b"new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in tmp_path.iterdir()] == ["best.json"]
