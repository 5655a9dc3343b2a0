import json
import math
import random
from collections import Counter
from itertools import permutations, product
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networkx.algorithms.isomorphism import DiGraphMatcher, categorical_node_match

from baselines.dense_prediction_cell import ASPP, FEATURES, PUBLISHED, Branch, Cell
from nasseg import plugins
from nasseg.graph import Architecture, Node
from nasseg.ops import Add, Concat, Conv, PyramidPool, SeparableConv
from search_spaces.dpc import DPC, GRIDS, RATES, from_published, to_published

OPERATORS = (
    Branch(input=FEATURES, op="conv1x1"),
    *(Branch(input=FEATURES, op="atrous", rate=rate) for rate in product(RATES, RATES)),
    *(Branch(input=FEATURES, op="pool", grid=grid) for grid in product(GRIDS, GRIDS)),
)
"""The 81 operators, as branches on F."""

# As the authors' file of their best cell has it.
PUBLISHED_FILE: list[dict[str, Any]] = [
    {"kernel": 3, "rate": [1, 6], "op": "conv", "input": -1},
    {"kernel": 3, "rate": [18, 15], "op": "conv", "input": 0},
    {"kernel": 3, "rate": [6, 3], "op": "conv", "input": 1},
    {"kernel": 3, "rate": [1, 1], "op": "conv", "input": 0},
    {"kernel": 3, "rate": [6, 21], "op": "conv", "input": 0},
]


def conv(source: int = FEATURES) -> dict[str, Any]:
    return {"input": source, "op": "conv1x1"}


def pairs() -> list[Cell]:
    """All 13,122 cells of two branches."""
    return [Cell(branches=(a, b.on(source))) for a, b, source in product(OPERATORS, OPERATORS, (FEATURES, 0))]


@st.composite
def cells(draw: st.DrawFn, operators: tuple[Branch, ...] = OPERATORS, branches: int = 5) -> Cell:
    return Cell(
        branches=tuple(
            draw(st.sampled_from(operators)).on(draw(st.integers(FEATURES, index - 1))) for index in range(branches)
        )
    )


few = cells(operators=OPERATORS[:2], branches=4)


def reordered(cell: Cell, order: tuple[int, ...]) -> Cell | None:
    """The same cell with its branches in another order; nothing where a branch would come before its input."""
    place = {old: new for new, old in enumerate(order)} | {FEATURES: FEATURES}
    branches = [cell.branches[old].on(place[cell.branches[old].input]) for old in order]
    if any(branch.input >= index for index, branch in enumerate(branches)):
        return None
    return Cell(branches=tuple(branches))


def isomorphic(a: Cell, b: Cell) -> bool:
    def tree(cell: Cell) -> nx.DiGraph:
        graph = nx.DiGraph()
        graph.add_node(FEATURES, operator=None)
        for index, branch in enumerate(cell.branches):
            graph.add_node(index, operator=branch.operator)
            graph.add_edge(branch.input, index)
        return graph

    same = categorical_node_match("operator", None)
    return bool(DiGraphMatcher(tree(a), tree(b), node_match=same).is_isomorphic())


def key_without_concat_order(cell: Cell) -> str:
    """The network's key once the concatenation is a sum, whose order does not count."""
    architecture: Architecture = DPC(branches=len(cell.branches), filters=4).architecture(cell, 2)
    nodes = [
        Node(name=node.name, op=Add(), inputs=node.inputs) if isinstance(node.op, Concat) else node
        for node in architecture.nodes
    ]
    return architecture.replace(nodes=tuple(nodes)).key


def test_there_are_81_operators_and_the_papers_number_of_cells() -> None:
    assert len({branch.operator for branch in OPERATORS}) == len(OPERATORS) == 1 + 8 * 8 + 4 * 4
    assert DPC().size() == 418_414_128_120
    assert DPC(branches=2).size() == len(set(pairs())) == 13_122


def test_samples_are_uniform() -> None:
    rng = random.Random(0)
    draws = 40_500
    space = DPC(branches=2)
    counts: Counter[tuple[int, object]] = Counter()
    inputs: Counter[int] = Counter()
    for _ in range(draws):
        cell = space.sample(rng)
        counts.update((index, branch.operator) for index, branch in enumerate(cell.branches))
        inputs[cell.branches[1].input] += 1
    expected = draws / 81
    for index in range(2):
        chi_square = sum((counts[index, b.operator] - expected) ** 2 / expected for b in OPERATORS)
        assert abs(chi_square - 80) < 4 * math.sqrt(2 * 80)
    assert abs(inputs[FEATURES] - draws / 2) < 4 * math.sqrt(draws / 4)
    assert inputs.keys() == {FEATURES, 0}


def test_neighbours_are_all_cells_with_one_decision_changed() -> None:
    """An input, an operator with any rate or grid, or one part of a rate or grid."""
    everything = pairs()

    def changes(a: Branch, b: Branch) -> int:
        parts = zip(a.operator[1:], b.operator[1:], strict=True)
        return (a.input != b.input) + (1 if a.op != b.op else sum(x != y for x, y in parts))

    for cell in random.Random(0).sample(everything, 5):
        found = list(DPC(branches=2).neighbours(cell))
        assert set(found) == {other for other in everything if sum(map(changes, cell.branches, other.branches)) == 1}
        assert len(set(found)) == len(found)
    # From an atrous convolution: 7 other heights and widths of the rate, a 1×1 convolution, 16 poolings.
    assert len(list(DPC().neighbours(PUBLISHED))) == 5 * (7 + 7 + 1 + 16) + (0 + 1 + 2 + 3 + 4)


def test_two_branches_make_9882_cells_up_to_order() -> None:
    canonical = {DPC(branches=2).canonical(cell) for cell in pairs()}
    assert len(canonical) == 81 * 82 // 2 + 81 * 81 == 9882


@given(cells())
def test_order_does_not_change_the_canonical_form(cell: Cell) -> None:
    canonical = DPC().canonical(cell)
    orders = [other for order in permutations(range(5)) if (other := reordered(cell, order)) is not None]
    assert {DPC().canonical(other) for other in orders} == {canonical}
    assert canonical in orders


@given(few, few)
def test_canonical_forms_are_equal_exactly_for_isomorphic_cells(a: Cell, b: Cell) -> None:
    equal = DPC(branches=4).canonical(a) == DPC(branches=4).canonical(b)
    assert equal == isomorphic(a, b) == (key_without_concat_order(a) == key_without_concat_order(b))


def test_references_are_points_of_the_space() -> None:
    assert DPC().references() == {"aspp": ASPP, "dpc": PUBLISHED}
    for branches in (1, 2, 3, 7):
        space = DPC(branches=branches)
        (aspp,) = space.references().values()
        assert space.parse(aspp.model_dump()) == aspp
        assert {branch.input for branch in aspp.branches} == {FEATURES}
    assert [(b.op, b.rate, b.grid) for b in ASPP.branches] == [
        ("conv1x1", None, None),
        ("atrous", (6, 6), None),
        ("atrous", (12, 12), None),
        ("atrous", (18, 18), None),
        ("pool", None, (1, 1)),
    ]


def test_published_file_is_read_and_written() -> None:
    assert DPC().parse(PUBLISHED_FILE) == DPC().parse(from_published(PUBLISHED_FILE)) == PUBLISHED
    assert to_published(PUBLISHED) == PUBLISHED_FILE


@given(cells())
def test_every_cell_survives_the_published_format(cell: Cell) -> None:
    assert DPC().parse(to_published(cell)) == cell


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            [{"op": "conv", "kernel": 5, "input": -1}],
            "branch 0 is {'op': 'conv', 'kernel': 5, 'input': -1}, but must have",
        ),
        (
            [{"op": "conv", "kernel": 3, "input": -1}],
            "a conv (kernel 1, or 3 with its rate) or a pyramid_pooling (with its",
        ),
        (["conv"], "branch 0 is conv, but must have an input and be a conv"),
        (
            [{**PUBLISHED_FILE[0], "rate": [1, 5]}, *PUBLISHED_FILE[1:]],
            "choice: branches[0].rate[1] is 5, but must be one of 1, 3, 6, 9, 12, 15, 18, 21",
        ),
        ([{**PUBLISHED_FILE[0], "input": "x"}], "choice: branches[0].input is 'x', but must be a valid integer"),
        ([*PUBLISHED_FILE[1:], PUBLISHED_FILE[0]], "choice: branches[0].input is 0, but must be -1"),
        (PUBLISHED_FILE[:2], "choice: branches has 2 items, but the space has 5"),
        ([*PUBLISHED_FILE, PUBLISHED_FILE[0]], "choice: branches has 6 items, but the space has 5"),
        ({"branches": []}, "choice: branches has 0 items, but the space has 5"),
        ({"branches": [conv(), conv(1)]}, "choice: branches[1].input is 1, but must be one of -1, 0"),
        ({"branches": [{**conv(), "op": "skip"}]}, "choice: branches[0].op is 'skip', but must be 'conv1x1', 'atrous'"),
        (
            {"branches": [{**conv(), "rate": [1, 1]}, *[conv()] * 4]},
            "choice: branches[0].rate is [1, 1], but must be None",
        ),
        ({"branches": [{**conv(), "op": "pool"}]}, "choice: branches[0].grid[0] is missing"),
        ({"branches": [conv()], "colour": 1}, "choice: colour is not a known field"),
    ],
)
def test_wrong_cells_are_refused_in_one_line(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"branch|colour") as caught:
        DPC().parse(data)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("output_stride", "rate"), [(8, (2, 42)), (16, (1, 21)), (32, (1, 10))])
def test_operators_become_those_of_the_paper(output_stride: int, rate: tuple[int, int]) -> None:
    cell = Cell(
        branches=(
            Branch(input=FEATURES, op="atrous", rate=(1, 21)),
            Branch(input=0, op="pool", grid=(2, 8)),
            Branch(input=FEATURES, op="conv1x1"),
        )
    )
    architecture = DPC(branches=3, output_stride=output_stride, filters=32).architecture(cell, 19)
    assert architecture["cell.branch0"].op == SeparableConv(out_channels=32, rate=rate)
    assert architecture["cell.branch1"].op == PyramidPool(out_channels=32, grid=(2, 8))
    assert architecture["cell.branch2"].op == Conv(out_channels=32, kernel=1)
    assert architecture["cell.branch0"].inputs == architecture["cell.branch2"].inputs == ("backbone.features.17",)
    assert architecture["cell.branch1"].inputs == ("cell.branch0",)
    assert architecture["cell.concat"].inputs == ("cell.branch0", "cell.branch1", "cell.branch2")
    shapes = {node.name: node.shape for node in architecture.describe((64, 96)).nodes}
    assert shapes["cell.projection"] == (32, 64 // output_stride, 96 // output_stride)


def test_rates_and_grids_are_the_papers() -> None:
    assert RATES == (1, 3, 6, 9, 12, 15, 18, 21)
    assert GRIDS == (1, 2, 4, 8)


@pytest.mark.parametrize(
    ("backbone", "weights"),  # the paper: 0.36 M on MobileNetV2, 0.81 M on Xception
    [("mobilenetv2", 356_160), ("xception65", 814_080), ("xception71", 814_080), ("resnet101", 814_080)],
)
def test_backbones_other_than_mobilenetv2_have_the_decoder(backbone: Any, weights: int) -> None:
    description = DPC(backbone=backbone).architecture(PUBLISHED, 19).describe((1025, 2049))
    branches = [node for node in description.nodes if node.name.startswith("cell.branch")]
    assert sum(node.weights for node in branches) == weights
    assert sum(node.madds for node in branches) == weights * 65 * 129
    assert ("decoder" in description.stages) == (backbone != "mobilenetv2")
    with_decoder = DPC(backbone=backbone, decoder=True).architecture(PUBLISHED, 19)
    assert with_decoder.channels("decoder.concat") == 48 + 256


def test_a_published_file_is_an_architecture_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    path.write_text(json.dumps(to_published(PUBLISHED)))
    loaded = plugins.architecture(str(path), num_classes=7)
    assert loaded.key == DPC().architecture(PUBLISHED, 7).key
    assert (loaded.space, loaded.classes) == ("dpc", 7)
    assert DPC().parse(loaded.choice) == PUBLISHED


def test_a_list_that_is_no_cell_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"cell\.json is a list, but no space reads it .*dpc: branch 0"):
        plugins.architecture(str(path))
