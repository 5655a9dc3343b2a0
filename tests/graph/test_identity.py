import json
import os
import random
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networkx.algorithms.isomorphism import DiGraphMatcher, categorical_node_match

from nasseg.graph import Architecture, Builder, Node
from nasseg.graph.identity import graph_key
from nasseg.ops import Activation, Add, Concat, Identity, Input, Multiply, Op, conv1x1
from tests.graph.test_architecture import staged

# Operators that keep one channel, so that any wiring fits; Concat is brought back to one by a convolution.
UNARY: tuple[Op, ...] = (Identity(), Activation(activation="sigmoid"))
BINARY: tuple[Op, ...] = (Add(), Multiply())


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """A random graph of few operators, so that equal nodes and isomorphic pairs are common."""
    g = Builder("random")
    names = [g.input(1)]
    used: set[str] = set()
    for index in range(draw(st.integers(1, 6))):
        sources = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2))
        used.update(sources)
        name = f"n{index}"
        if len(sources) == 1:
            names.append(g.add(name, draw(st.sampled_from(UNARY)), *sources))
        elif draw(st.booleans()):
            names.append(g.add(name, draw(st.sampled_from(BINARY)), *sources))
        else:
            joined = g.add(f"joined{index}", Concat(), *sources)
            names.append(g.add(name, conv1x1(1), joined))
    loose = [name for name in names[1:] if name not in used]
    return g.build(g.add("out", Add(), *loose) if len(loose) > 1 else loose[0])


def renamed(architecture: Architecture, rng: random.Random) -> Architecture:
    """The same graph with other names, nodes in another order, and order-free inputs in another order."""
    numbers = list(range(len(architecture.nodes)))
    rng.shuffle(numbers)
    names = {node.name: f"x{number}" for node, number in zip(architecture.nodes, numbers, strict=True)}

    def shuffled(node: Node) -> tuple[str, ...]:
        inputs = [names[source] for source in node.inputs]
        if node.op.order_free:
            rng.shuffle(inputs)
        return tuple(inputs)

    nodes = [Node(name=names[node.name], op=node.op, inputs=shuffled(node)) for node in architecture.nodes]
    rng.shuffle(nodes)
    return Architecture(name="renamed", nodes=tuple(nodes), outputs=tuple(names[o] for o in architecture.outputs))


def isomorphic(a: Architecture, b: Architecture) -> bool:
    """By networkx's matching, with each input as a node of its own between source and target."""

    def graph(architecture: Architecture) -> nx.DiGraph:
        result = nx.DiGraph()
        for node in architecture.nodes:
            result.add_node(node.name, label=(str(node.op), node.name in architecture.outputs))
            for place, source in enumerate(node.inputs):
                edge = (node.name, place)
                result.add_node(edge, label=(None if node.op.order_free else place))
                result.add_edge(source, edge)
                result.add_edge(edge, node.name)
        return result

    same = categorical_node_match("label", None)
    return bool(DiGraphMatcher(graph(a), graph(b), node_match=same).is_isomorphic())


@given(architectures(), st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_names_and_free_order_do_not_count(architecture: Architecture, rng: random.Random) -> None:
    assert renamed(architecture, rng).key == architecture.key
    again = renamed(architecture, rng)
    assert sorted(again.node_keys.values()) == sorted(architecture.node_keys.values())


@given(architectures(), architectures())
@settings(max_examples=200)
def test_keys_are_equal_exactly_for_isomorphic_graphs(a: Architecture, b: Architecture) -> None:
    assert (a.key == b.key) == isomorphic(a, b)


@given(architectures(), st.data())
@settings(max_examples=100)
def test_rewired_graphs_have_the_key_of_their_isomorphism_class(a: Architecture, data: st.DataObject) -> None:
    """Moving one connection makes pairs that are nearly, and now and then truly, the same."""
    target = data.draw(st.sampled_from([node for node in a.nodes if node.inputs]))
    earlier = [n.name for n in a.ordered if target.name not in a.ancestors([n.name]) and a.channels(n.name) == 1]
    inputs = list(target.inputs)
    inputs[data.draw(st.integers(0, len(inputs) - 1))] = data.draw(st.sampled_from(earlier))
    moved = Node(name=target.name, op=target.op, inputs=tuple(inputs))
    try:
        b = a.replace(nodes=tuple(moved if node is target else node for node in a.nodes))
    except ValueError:
        return  # a node lost its only use
    assert (a.key == b.key) == isomorphic(a, b)


def test_one_node_used_twice_is_not_two_equal_nodes() -> None:
    def build(twice: bool) -> Architecture:
        g = Builder("concat")
        image = g.input()
        a = g.add("a", conv1x1(4), image)
        b = a if twice else g.add("b", conv1x1(4), image)
        return g.build(g.add("out", Concat(), a, b))

    once, two = build(True), build(False)
    assert once.node_keys["out"] == two.node_keys["out"]  # the same function, were the weights the same
    assert once.key != two.key


def test_crossed_residual_branches_differ_from_straight_ones() -> None:
    """Each node has the same surroundings in both; only the whole tells them apart."""

    def build(first: str, second: str) -> Architecture:
        g = Builder("residual")
        image = g.input()
        for branch in "ab":
            g.add(branch, conv1x1(4), image)
            g.add(f"{branch}_then", conv1x1(4), branch)
        sums = [g.add("sum1", Add(), "a", first), g.add("sum2", Add(), "b", second)]
        return g.build(g.add("out", Add(), *sums))

    straight, crossed = build("a_then", "b_then"), build("b_then", "a_then")
    assert sorted(straight.node_keys.values()) == sorted(crossed.node_keys.values())
    assert straight.key != crossed.key
    assert not isomorphic(straight, crossed)


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": ("n2", "n1")},
        {"outputs": ("n1", "n2"), "training_outputs": ("n1",)},
        {"outputs": ("n1",), "training_outputs": ("n2",)},
        {"outputs": ("n2",)},
    ],
)
def test_outputs_count(change: dict[str, tuple[str, ...]]) -> None:
    g = Builder("outputs")
    n1 = g.add("n1", conv1x1(4), g.input())
    architecture = g.build(n1, g.add("n2", conv1x1(4), n1))
    assert architecture.replace(**change).key != architecture.key
    assert architecture.replace(name="other", provenance={"a": 1}, space="s", choice={}).key == architecture.key


def test_inputs_are_told_apart_by_their_place() -> None:
    def build(first: str, second: str) -> Architecture:
        nodes = [Node(name=name, op=Input(channels=2)) for name in "ab"]
        out = Node(name="out", op=Concat(), inputs=(first, second))
        return Architecture(name="two", nodes=(*nodes, out), outputs=("out",))

    assert build("a", "b").key != build("b", "a").key


@pytest.mark.parametrize("op", [conv1x1(4), conv1x1(8).model_copy(update={"bias": True}), Identity()])
def test_every_operator_counts(op: Op) -> None:
    def build(op: Op) -> Architecture:
        g = Builder("one")
        return g.build(g.add("out", op, g.input()))

    assert build(op).key != build(conv1x1(8)).key


def test_many_equal_branches_are_settled_fast() -> None:
    g = Builder("wide")
    image = g.input()
    branches = [g.add(f"b{i}", conv1x1(4), g.add(f"a{i}", conv1x1(4), image)) for i in range(16)]
    architecture = g.build(g.add("out", Add(), *branches))
    assert renamed(architecture, random.Random(0)).key == architecture.key


def test_interchangeable_nodes_are_settled_fast() -> None:
    g = Builder("dense")
    image = g.input()
    layer = [g.add(f"a{i}", conv1x1(4), image) for i in range(9)]
    layer = [g.add(f"b{i}", Add(), *layer) for i in range(9)]
    architecture = g.build(g.add("out", Add(), *layer))
    assert renamed(architecture, random.Random(0)).key == architecture.key


def test_regular_graphs_that_refinement_alone_cannot_part() -> None:
    def cycles(*lengths: int) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
        edges = []
        for part, length in enumerate(lengths):
            edges += [(f"{part}.{i}", "", f"{part}.{(i + 1) % length}") for i in range(length)]
        return {source: "same" for source, *_ in edges}, edges

    assert graph_key(*cycles(6)) != graph_key(*cycles(3, 3))
    assert graph_key(*cycles(4, 2)) == graph_key(*cycles(2, 4)) != graph_key(*cycles(3, 3))


def test_another_process_gives_the_same_keys() -> None:
    script = (
        "import json; from tests.graph.test_architecture import staged;"
        "a = staged(); print(json.dumps([a.key, a.node_keys]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [staged().key, staged().node_keys]
