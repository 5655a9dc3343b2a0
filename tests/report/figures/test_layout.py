import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasseg.report.figures.layout import Layout, layered

GAP, PASSAGE = 1.15, 0.4


@st.composite
def dags(draw: st.DrawFn) -> nx.DiGraph:
    size = draw(st.integers(1, 9))
    graph = nx.DiGraph()
    graph.add_nodes_from(range(size))
    pairs = [(a, b) for b in range(size) for a in range(b)]
    graph.add_edges_from(draw(st.lists(st.sampled_from(pairs), max_size=14)) if pairs else [])
    return graph


@given(dags())
def test_edges_point_down_and_boxes_are_apart(graph: nx.DiGraph) -> None:
    layout = layered(graph, GAP, PASSAGE)
    assert set(layout.positions) == set(graph)
    assert set(layout.routes) == set(graph.edges)
    for (source, target), route in layout.routes.items():
        assert route[0] == layout.positions[source]
        assert route[-1] == layout.positions[target]
        assert [y for _, y in route] == list(range(route[0][1], route[-1][1] + 1))
        assert route[-1][1] > route[0][1]
    boxes = [(x, y, 1.0) for x, y in layout.positions.values()]
    passages = [(x, y, PASSAGE) for route in layout.routes.values() for x, y in route[1:-1]]
    things = boxes + passages
    for i, (x, y, width) in enumerate(things):
        for other_x, other_y, other_width in things[i + 1 :]:
            assert y != other_y or abs(x - other_x) >= GAP * (width + other_width) / 2 - 0.002


def test_a_chain_is_straight() -> None:
    layout = layered(nx.path_graph(5, create_using=nx.DiGraph))
    assert {x for x, _ in layout.positions.values()} == {0.0}
    assert [y for _, y in layout.positions.values()] == [0, 1, 2, 3, 4]


def test_a_long_edge_runs_straight_past_the_chain() -> None:
    graph = nx.path_graph(6, create_using=nx.DiGraph)
    graph.add_edge(0, 5)
    route = layered(graph).routes[0, 5]
    assert len({x for x, _ in route[1:-1]}) == 1


def crossings(layout: Layout) -> int:
    ends = [(a[0], b[0]) for a, b in layout.routes.values()]
    return sum((a - c) * (b - d) < 0 for i, (a, b) in enumerate(ends) for c, d in ends[i + 1 :])


def test_crossings_are_avoided_where_they_can_be() -> None:
    assert crossings(layered(nx.DiGraph([("a", "y"), ("b", "x"), ("c", "z"), ("c", "y"), ("a", "x")]))) == 0


def test_an_empty_graph_has_no_places() -> None:
    assert layered(nx.DiGraph()) == Layout({}, {})


def test_a_cycle_is_refused() -> None:
    with pytest.raises(nx.NetworkXUnfeasible):
        layered(nx.DiGraph([(1, 2), (2, 1)]))
