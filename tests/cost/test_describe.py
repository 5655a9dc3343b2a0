import json

import pytest

from baselines.dense_prediction_cell import ASPP, PUBLISHED
from nasseg.cost import Description, NodeCost, op_madds
from nasseg.graph import Architecture, Builder
from nasseg.ops import (
    AveragePool,
    Concat,
    Conv,
    Gate,
    GlobalPool,
    PyramidPool,
    Resize,
    SeparableConv,
    TransposedConv,
    conv1x1,
    logits1x1,
)
from search_spaces.dpc import DPC


def tiny() -> Architecture:
    g = Builder("tiny")
    image = g.input()
    with g.scope("backbone"):
        x = g.add("conv", Conv(out_channels=8, kernel=3, stride=2, groups=1, bias=True), image)
        x = g.add("grouped", Conv(out_channels=8, kernel=5, groups=4, norm="none"), x)
        x = g.add("separable", SeparableConv(out_channels=6, rate=(2, 1)), x)
    with g.scope("cell"):
        mean = g.add("mean", GlobalPool(), x)
        weight = g.add("weight", conv1x1(6), mean)
        gated = g.add("gate", Gate(), x, weight)
        pyramid = g.add("pyramid", PyramidPool(out_channels=4, grid=(2, 3)), gated)
        joined = g.add("concat", Concat(), gated, g.add("pool", AveragePool(), pyramid))
    up = g.add("decoder.up", TransposedConv(out_channels=5, kernel=4, bias=True), joined, image)
    aside = g.add("aside", logits1x1(7), joined)
    return g.build(g.add("head", Resize(), g.add("logits", logits1x1(2), up), image), training_outputs=(aside,))


# name: (params, weights, multiply-adds, shape) by hand, for 9×14 images, which are 5×7 at stride 2
BY_HAND = {
    "image": (0, 0, 0, (3, 9, 14)),
    "backbone.conv": (8 * 27 + 8 + 16, 8 * 27, 8 * 27 * 35, (8, 5, 7)),
    "backbone.grouped": (8 * 2 * 25, 8 * 2 * 25, 8 * 2 * 25 * 35, (8, 5, 7)),
    "backbone.separable": (8 * 9 + 16 + 6 * 8 + 12, 8 * 9 + 6 * 8, (8 * 9 + 6 * 8) * 35, (6, 5, 7)),
    "cell.mean": (0, 0, 0, (6, 1, 1)),
    "cell.weight": (36 + 12, 36, 36, (6, 1, 1)),
    "cell.gate": (0, 0, 0, (6, 5, 7)),
    "cell.pyramid": (24 + 8, 24, 24 * 6, (4, 5, 7)),
    "cell.pool": (0, 0, 0, (4, 5, 7)),
    "cell.concat": (0, 0, 0, (10, 5, 7)),
    "decoder.up": (10 * 5 * 16 + 5, 10 * 5 * 16, 10 * 5 * 16 * 35, (5, 9, 14)),
    "logits": (2 * 5 + 2, 2 * 5, 2 * 5 * 126, (2, 9, 14)),
    "head": (0, 0, 0, (2, 9, 14)),
}


@pytest.fixture(scope="module")
def description() -> Description:
    return tiny().describe((9, 14))


@pytest.mark.parametrize("name", BY_HAND)
def test_costs_of_each_node_are_those_by_hand(description: Description, name: str) -> None:
    (node,) = [node for node in description.nodes if node.name == name]
    assert (node.params, node.weights, node.madds, node.shape) == BY_HAND[name]


def test_the_whole_is_the_sum(description: Description) -> None:
    assert {node.name for node in description.nodes} == set(BY_HAND)
    assert description.params == sum(params for params, *_ in BY_HAND.values())
    assert description.params_training == description.params + 7 * 10 + 7
    assert description.madds == sum(madds for _, _, madds, _ in BY_HAND.values())
    assert list(description.stages) == ["backbone", "cell", "decoder", "logits", "head"]
    for stage, cost in description.stages.items():
        nodes = [BY_HAND[name] for name in BY_HAND if name.split(".")[0] == stage]
        assert (cost.params, cost.weights, cost.madds) == tuple(sum(node[i] for node in nodes) for i in range(3))


def test_json_has_the_fields_of_the_contract(description: Description) -> None:
    data = json.loads(description.model_dump_json())
    assert set(data) >= {"name", "params", "params_training", "madds", "size", "classes", "stages", "nodes"}
    assert (data["name"], data["size"], data["classes"], data["key"]) == ("tiny", [9, 14], 2, tiny().key)
    assert data["nodes"][3] == {
        "name": "backbone.separable",
        "op": "separable_conv(out_channels=6, rate=2×1)",
        "inputs": ["backbone.grouped"],
        "params": 148,
        "weights": 120,
        "madds": 4200,
        "shape": [6, 5, 7],
    }
    assert Description.model_validate(data) == description


def test_maps_that_do_not_fit_name_the_node() -> None:
    g = Builder("misfit")
    image = g.input()
    halved = g.add("halved", Conv(out_channels=3, stride=2), image)
    architecture = g.build(g.add("joined", Concat(), image, halved))
    with pytest.raises(ValueError, match=r"^node 'joined' cannot take inputs of 3×8×6, 3×4×3: "):
        architecture.describe((8, 6))


def cell(description: Description) -> dict[str, NodeCost]:
    return {node.name: node for node in description.nodes if node.name.startswith("cell.")}


def test_published_cell_has_the_papers_costs() -> None:
    description = DPC().architecture(PUBLISHED, 19).describe((1025, 2049))
    nodes = cell(description)
    assert nodes["cell.concat"].shape == (5 * 256, 65, 129)
    branches = [node for name, node in nodes.items() if "branch" in name]
    assert sum(node.weights for node in branches) == 356_160
    assert sum(node.madds for node in branches) == 356_160 * 65 * 129
    assert sum(node.madds for node in branches) + 5 * 256 * 65 * 129 == pytest.approx(2.997e9, rel=2e-4)
    assert description.stages["cell"].weights == 683_840


def test_aspp_has_the_true_number_of_weights() -> None:
    nodes = cell(DPC().architecture(ASPP, 19).describe((1025, 2049)))
    assert sum(node.weights for name, node in nodes.items() if "branch" in name) == 418_240


def test_an_operator_alone_costs_what_it_costs_in_a_network(description: Description) -> None:
    shapes = {node.name: node.shape for node in description.nodes}
    for node in tiny().inference().ordered[1:]:
        assert op_madds(node.op, [shapes[source] for source in node.inputs]) == BY_HAND[node.name][2], node.name
