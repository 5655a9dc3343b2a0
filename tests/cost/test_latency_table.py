import json
from pathlib import Path

import pytest

from nasseg.cost.latency_table import LatencyTable, Operator, operators_of
from nasseg.graph import Architecture, Node
from nasseg.ops import Add, Conv, Gate, conv1x1

from .made_up import SIZE, network, table


def test_operators_are_those_of_inference_with_their_inputs() -> None:
    stem, conv, again, _, head = operators_of(network(4, 4), SIZE)
    assert stem == Operator(op=Conv(out_channels=4, stride=2), inputs=((3, 8, 12),))
    assert conv == again == Operator(op=conv1x1(4), inputs=((4, 4, 6),))
    assert head.inputs == ((2, 4, 6), (3, 8, 12))


def test_latency_is_the_calibrated_sum_over_the_nodes() -> None:
    times = table(network(4, 4), 1.0, 0.25, 0.5, 3.0)
    assert times.latency_ms(network(4, 4)) == 2 * (1 + 0.25 + 0.25 + 0.5 + 3) + 0.5 * 5 + 10
    assert times.latency_ms(network()) == 2 * (1 + 0.5 + 3) + 0.5 * 3 + 10


def test_operators_and_the_fixed_part_add_up_to_the_network() -> None:
    times = table(network(4, 4), 1.0, 0.25, 0.5, 3.0)
    parts = [times.op_ms(operator.op, operator.inputs) for operator in operators_of(network(4, 4), SIZE)]
    assert sum(parts) + times.calibration.fixed_ms == times.latency_ms(network(4, 4))
    assert parts[1] == 2 * 0.25 + 0.5


def gated() -> Architecture:
    """A network with an operator of a kind that the others do not have."""
    gate = Node(name="gate", op=Gate(), inputs=("head", "head"))
    return network().replace(nodes=(*network().nodes, gate), outputs=("gate",))


def test_an_operator_is_interpolated_where_its_kind_was_measured() -> None:
    times = table(network(4), 1.0, 0.25, 0.5, 3.0)
    small, large = (times.op_ms(conv1x1(channels), ((4, 4, 6),)) for channels in (4, 9))
    assert small == 2 * 0.25 + 0.5
    assert large > small
    assert times.missing(network(5, 6)) == ()
    assert times.latency_ms(network(4)) == 2 * 4.75 + 0.5 * 4 + 10  # measured ones stay as they are
    assert times.latency_ms(network(5, 6)) > times.latency_ms(network())


def test_operators_of_other_kinds_are_named_and_counted() -> None:
    times = table(network(4), 1.0, 0.25, 0.5, 3.0)
    assert [operator.op for operator in times.missing(gated())] == [Gate()]
    with pytest.raises(ValueError, match=r"lacks 1 operators: gate\(\) on 2×8×12, 2×8×12; profile the space being"):
        times.latency_ms(gated())
    with pytest.raises(ValueError, match="lacks 1 operators"):
        times.op_ms(Add(), ((4, 4, 6), (4, 4, 6)))


def test_a_table_of_another_space_is_refused() -> None:
    times = table(network(4), 1.0, 0.25, 0.5, 3.0)
    with pytest.raises(ValueError, match=r"lacks 4 operators: conv\(out_channels=5, kernel=1\) on .* and 1 more"):
        times.check(SIZE, "float32", [network(4), network(5, 6, 7)])
    rare = [network(4)] * 100  # 400 operators, and two more that were not measured
    times.check(SIZE, "float32", [*rare, network(5)])
    with pytest.raises(ValueError, match="lacks 1 operators"):
        times.check(SIZE, "float32", [*rare, gated()])
    part = table(network(4), 1.0, 0.25, 0.5, 3.0, found=5)
    assert part.interpolates
    part.check(SIZE, "float32", [network(5, 6, 7)])


def test_what_does_not_fit_is_refused_with_the_fix() -> None:
    times = table(network(4), 1.0, 0.25, 0.5, 3.0)
    times.check(SIZE, "float32", [network(4), network(4, 4)])
    with pytest.raises(ValueError, match="is for images of 8x12, but 16x24 is needed; profile with --size 16x24"):
        times.check((16, 24), "float32")
    with pytest.raises(ValueError, match="is for float32, but float16 is needed; profile with --dtype float16"):
        times.check(SIZE, "float16")


def test_a_file_gives_the_same_table(tmp_path: Path) -> None:
    times = table(network(4), 1.0, 0.25, 0.5, 3.0)
    times.save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json") == times
    assert len((tmp_path / "table.json").read_text().splitlines()) < 20
    assert json.loads((tmp_path / "table.json").read_text())["format"] == "nasseg.latency/1"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"median_ms": 0.25', '"median_ms": -1', r"entries\[1\].median_ms is -1, but must be greater than"),
        ('"op": "resize"', '"op": "grow"', r"entries\[3\].operator.op.op is 'grow', but must be one of"),
        ('"threads": 1', '"threads": 0', "conditions.threads is 0"),
        ('"space"', '"room"', "space is missing"),
        ("nasseg.latency/1", "nasseg.latency/9", "format is 'nasseg.latency/9', but must be 'nasseg.latency/1'"),
        ("{", "(", "is not JSON"),
    ],
)
def test_a_broken_file_names_the_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "table.json"
    table(network(4), 1.0, 0.25, 0.5, 3.0).save(path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as error:
        LatencyTable.load(path)
    assert str(error.value).startswith(str(path))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file; give a table of nasseg profile"):
        LatencyTable.load(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="format is 'list'"):
        LatencyTable.load(tmp_path / "list.json")
    with pytest.raises(ValueError, match="is a folder"):
        LatencyTable.load(tmp_path)
