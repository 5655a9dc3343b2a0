"""What a file may ask for, whoever wrote it."""

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from nasseg.foreign import (
    MAX_CHANNELS,
    MAX_JSON_BYTES,
    MAX_NESTING,
    MAX_NODES,
    MAX_PARAMETERS,
    MAX_VALUES,
    MAX_YAML_BYTES,
    DamagedError,
    damaged,
    read_bytes,
    read_json,
    read_yaml,
)
from nasseg.graph import Architecture, load
from nasseg.network import Network
from nasseg.ops import Conv, StdcModule

DEEP = 100_000


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (nested(MAX_NESTING + 1), f"is nested over {MAX_NESTING} deep, the most that is read"),
        (nested(DEEP), f"is nested over {MAX_NESTING} deep, the most that is read"),
        ('{"a":' * DEEP, f"is nested over {MAX_NESTING} deep, the most that is read"),
        ("[9223372036854775808]", "holds the integer 9223372036854775808, but integers must have at most 63 bits"),
        ("[-1" + "0" * 6000 + "]", "but integers must have at most 63 bits"),
        ("[NaN]", "holds nan, but numbers must be finite"),
        ("[-Infinity]", "holds -inf, but numbers must be finite"),
        ("[1e999]", "holds inf, but numbers must be finite"),
        ('{"a": 1, "b": 2, "a": 3}', "has the key 'a' twice"),
        ("[" + "0," * MAX_VALUES + "0]", f"holds over {MAX_VALUES:,} values, the most that are read"),
        ("[1,", "is not JSON: "),
        (b"\xff", "is not JSON: byte 0 is not UTF-8"),
    ],
)
def test_json_beyond_the_limits_is_refused(content: str | bytes, line: str, tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=r"best\.json") as caught:
        read_json(path, "give another")
    text = str(caught.value).removeprefix(f"{path} ")
    assert line in text
    assert text.endswith("; give another")
    assert len(text) < 180


def test_json_within_the_limits_is_read(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    values = {"a": json.loads(nested(MAX_NESTING - 1)), "b": [2**63 - 1, -(2**63 - 1), 1e308, "é", None, True]}
    path.write_text(json.dumps(values))
    assert read_json(path, "") == values


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (nested(MAX_NESTING + 1), f"nested over {MAX_NESTING} deep in line 1"),
        (nested(DEEP // 4), f"nested over {MAX_NESTING} deep in line 1"),
        ("a: &a [x, x]\nb: [*a, *a]", "anchors, aliases and tags are not read in line 1"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]", "anchors, aliases and tags are not read in line 2"),
        ("a: 1\nb: 2\na: 3", "a key is repeated in line 1"),
        ("a: .inf", "holds inf, but numbers must be finite"),
        ("a: 99999999999999999999", "integers must have at most 63 bits"),
        ("a: " + "9" * 6000, "is not YAML: "),
        ("a: 2001-99-99", "is not YAML: month must be in 1..12"),
        ("a: [", "is not YAML: expected the node content, but found '<stream end>' in line 1"),
        ("\x00", "is not YAML: "),
    ],
)
def test_yaml_beyond_the_limits_is_refused(content: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"config\.yaml") as caught:
        read_yaml(path, "give another")
    text = str(caught.value).removeprefix(f"{path} ")
    assert line in text
    assert text.endswith("; give another")
    assert len(text) < 180


@pytest.mark.parametrize(("read", "limit"), [(read_json, MAX_JSON_BYTES), (read_yaml, MAX_YAML_BYTES)])
def test_a_large_file_is_refused_unread(read: Any, limit: int, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(limit + 1)
    with pytest.raises(ValueError, match=rf"large has {limit + 1:,} bytes, but must have at most {limit:,}; give"):
        read(path, "give another")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for name, line in (("none", ": no such file"), (".", " is a folder"), ("pipe", " is no regular file")):
        with pytest.raises(ValueError, match=rf"{line}; give another$"):
            read_bytes(tmp_path / name, 10, "give another")


def test_damage_is_told_in_one_line() -> None:
    with (
        pytest.raises(DamagedError, match=r"^run/file is damaged \(KeyError: 'a'\); restore it$"),
        damaged("run/file", "restore it"),
    ):
        {}["a"]
    with pytest.raises(DamagedError, match=r"^line 3 is bad$"), damaged("run/file", "restore it"):
        raise DamagedError("line 3 is bad")


def chain(nodes: int, **op: object) -> dict[str, Any]:
    """A network of so many equal nodes, one after the other, each in a stage of its own."""
    names = ["image", *(f"stage{number}.node" for number in range(nodes))]
    made = [{"name": name, "op": op, "inputs": [source]} for source, name in pairwise(names)]
    image = {"name": "image", "op": {"op": "input"}}
    return {"format": "nasseg.architecture/1", "name": "chain", "nodes": [image, *made], "outputs": names[-1:]}


def test_a_chain_of_20_000_nodes_is_read_hashed_and_described_in_linear_time(tmp_path: Path) -> None:
    """Anything quadratic would take minutes here."""
    path = tmp_path / "best.json"
    path.write_text(json.dumps(chain(20_000, op="identity")))
    network = load(path)
    assert len(network.key) == 20
    description = network.describe((16, 16))
    assert len(description.nodes) == 20_001
    assert len(description.stages) == 20_000


def test_too_many_nodes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    path.write_text(json.dumps(chain(MAX_NODES, op="identity")))
    with pytest.raises(ValueError, match=rf"best\.json: nodes is .*, but .* at most {MAX_NODES} items"):
        load(path)


@pytest.mark.parametrize(
    ("op", "line"),
    [
        ({"op": "stdc_module", "out_channels": 64, "blocks": 1e11}, "must be less than or equal to 16"),
        ({"op": "conv", "out_channels": 10**9}, f"must be less than or equal to {MAX_CHANNELS}"),
        ({"op": "conv", "out_channels": 8, "rate": 10**12}, "must be less than or equal to 1024"),
        ({"op": "pyramid_pool", "out_channels": 8, "grid": [10**6, 10**6]}, "must be less than or equal to 64"),
        ({"op": "inverted_residual", "out_channels": 8, "expansion": 10**9}, "must be less than or equal to 64"),
        ({"op": "resize", "factor": 1e300}, "must be less than or equal to 1024"),
    ],
)
def test_an_operator_asks_for_no_more_than_any_of_use(op: dict[str, Any], line: str, tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text(json.dumps(chain(1, **op)))
    with pytest.raises(ValueError, match=r"nodes\[1\]\.op") as caught:
        load(tmp_path / "best.json")
    assert line in str(caught.value)


def test_channels_that_add_up_to_too_many_are_refused() -> None:
    data = chain(2, op="concat")
    data["nodes"][0]["op"] = {"op": "input", "channels": MAX_CHANNELS // 2}
    data["nodes"][1]["inputs"] *= 3
    with pytest.raises(ValueError, match=r"concat has 98,304 output channels, but must have at most 65,536"):
        Architecture.model_validate(data)


def test_parameters_are_counted_before_they_are_allocated() -> None:
    """These would take 17 TB."""
    wide = {"op": "conv", "out_channels": MAX_CHANNELS, "kernel": 31, "bias": True}
    network = Architecture.model_validate(chain(2, **wide))
    with pytest.raises(ValueError, match=rf"^chain has 4,.* parameters, but must have at most {MAX_PARAMETERS:,}$"):
        Network(network)


@pytest.mark.parametrize("op", [Conv(out_channels=6, groups=2, bias=True), StdcModule(out_channels=16)])
def test_parameters_that_are_counted_are_those_that_are_there(op: Any) -> None:
    assert op.parameters([4]) == sum(parameter.numel() for parameter in op.build([4]).parameters())


def test_a_graph_of_equal_nodes_is_hashed_or_refused_soon() -> None:
    """Two equal chains are told apart from their ends, one pair of nodes after the other."""
    ends = []
    nodes: list[dict[str, Any]] = [{"name": "image", "op": {"op": "input"}}]
    for side in "ab":
        source = "image"
        for number in range(600):
            nodes.append({"name": f"{side}.n{number}", "op": {"op": "identity"}, "inputs": [source]})
            source = f"{side}.n{number}"
        ends.append(source)
    nodes.append({"name": "flip", "op": {"op": "activation"}, "inputs": ends[:1]})
    nodes.append({"name": "add", "op": {"op": "add"}, "inputs": ["flip", ends[1]]})
    network = Architecture.model_validate({"name": "ladder", "nodes": nodes, "outputs": ["add"]})
    with pytest.raises(ValueError, match="too many equal nodes to tell them apart for its hash; make it smaller"):
        assert network.key
