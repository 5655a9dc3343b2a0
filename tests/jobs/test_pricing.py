from pathlib import Path
from typing import Any

import pytest

from nasseg import plugins
from nasseg.cost import op_madds, peak_memory_bytes
from nasseg.cost.latency_table import LatencyTable, operators_of
from nasseg.graph import Architecture, Node
from nasseg.jobs.pricing import Pricing, check_costs
from nasseg.ops import Add, Conv
from nasseg.planning.limits import Limits
from tests.cost.made_up import SIZE, network, table
from tests.jobs.tiny import SPACE, Head, TinySpace, latency_table

NETWORK = network(4, 8)


def priced(architecture: Architecture, **limits: Any) -> Pricing:
    times = range(1, 1 + len(dict.fromkeys(operators_of(architecture, SIZE))))
    return Pricing(SIZE, Limits(**limits), table(architecture, *times))


def test_costs_are_those_of_graph_and_table() -> None:
    described = NETWORK.describe(SIZE)
    plain = Pricing(SIZE).costs(NETWORK)
    assert (plain.madds, plain.params) == (described.madds, described.params)
    assert (plain.latency_ms, plain.memory_bytes) == (None, None)
    pricing = priced(NETWORK, memory_bytes=1e6)
    assert pricing.table is not None
    costs = pricing.costs(NETWORK)
    assert costs.latency_ms == pricing.table.latency_ms(NETWORK)
    assert costs.memory_bytes == peak_memory_bytes(NETWORK, SIZE)


def test_constraints_are_those_of_the_limits() -> None:
    params = NETWORK.describe(SIZE).params
    assert Pricing(SIZE).constraints(NETWORK) == {}
    assert Pricing(SIZE, Limits(params=params / 2)).constraints(NETWORK) == {"params": pytest.approx(1)}


def test_operators_that_the_table_knows_nothing_like_break_a_limit() -> None:
    pricing = priced(NETWORK)
    added = Node(name="sum", op=Add(), inputs=("head", "head"))
    other = NETWORK.replace(nodes=(*NETWORK.nodes, added), outputs=("sum",))
    assert pricing.costs(other).latency_ms is None
    assert pricing.constraints(other) == {"operators not in the latency table": 1.0}
    assert pricing.constraints(NETWORK) == {}


def test_operators_are_priced_as_networks_are() -> None:
    conv, shape = Conv(out_channels=4, stride=2), (3, *SIZE)
    assert Pricing(SIZE).op_cost(conv, [shape]) == op_madds(conv, [shape])
    pricing = priced(NETWORK)
    assert pricing.table is not None
    assert pricing.op_cost(conv, [shape]) == pricing.table.op_ms(conv, [shape])


@pytest.fixture
def latency(tmp_path: Path) -> Path:
    """A table of the tiny space with three classes."""
    path = tmp_path / "table.json"
    latency_table((64, 96), classes=3).save(path)
    return path


def check(latency: Path | None, size: tuple[int, int] = (64, 96), classes: int = 3, **limits: float) -> None:
    check_costs(SPACE, plugins.space(SPACE, named_by_user=SPACE), classes, size, Limits(**limits), latency)


def test_a_table_that_fits_is_taken(latency: Path) -> None:
    check(latency)
    check(latency, latency_ms=1000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (32, 48)}, "table is for images of 64x96, but 32x48 is needed.* --size 32x48 --classes 3"),
        ({"classes": 4}, r"lacks \d+ operators: .* --size 64x96 --classes 4"),
        ({"latency_ms": 1e-3}, r"target_latency is 0.00 ms, but the fastest network found in the space has \d"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_way_out(latency: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(latency, **options)


def test_a_target_needs_a_table() -> None:
    with pytest.raises(ValueError, match="target_latency needs a latency table") as caught:
        check(None, latency_ms=10)
    assert f"nasseg profile --space {SPACE} --size 64x96 --classes 3 --out TABLE.json" in str(caught.value)


def test_the_fastest_of_the_space_is_told(latency: Path) -> None:
    space, loaded = TinySpace(), LatencyTable.load(latency)
    every = [Head(kernel=kernel, channels=channels) for kernel in (1, 3, 5) for channels in range(1, 17)]
    fastest = min(loaded.latency_ms(space.architecture(choice, 3)) for choice in every)
    with pytest.raises(ValueError, match=f"has {fastest:.2f} ms"):
        check(latency, latency_ms=fastest * 0.99)
    check(latency, latency_ms=fastest * 1.01)
