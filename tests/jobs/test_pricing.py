from typing import Any

import pytest

from nasseg.cost import op_madds, peak_memory_bytes
from nasseg.cost.latency_table import operators_of
from nasseg.graph import Architecture, Node
from nasseg.jobs.pricing import Pricing
from nasseg.ops import Add, Conv
from nasseg.planning.limits import Limits
from tests.cost.made_up import SIZE, network, table

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


def test_costs_of_the_latest_networks_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasseg.jobs.pricing.MOST_KNOWN", 2)
    counted: list[str] = []
    describe = Architecture.describe

    def spy(self: Architecture, size: tuple[int, int]) -> Any:
        counted.append(self.key)
        return describe(self, size)

    monkeypatch.setattr(Architecture, "describe", spy)
    pricing, (a, b, c) = Pricing(SIZE), (network(4, channels) for channels in (8, 12, 16))
    for architecture in (a, b, a, c, b, a):
        pricing.costs(architecture)
    assert counted == [a.key, b.key, c.key, a.key]


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
