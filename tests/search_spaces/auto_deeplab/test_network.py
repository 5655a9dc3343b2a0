import random
from math import ceil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nasseg.graph import Architecture
from nasseg.network import Network
from nasseg.ops import Conv, Resize, Zero
from search_spaces.auto_deeplab import AutoDeepLab
from search_spaces.auto_deeplab.choice import Backbone, Block
from tests.search_spaces.auto_deeplab.made_up import block, cells

FILTERS = 2
PLAIN = block(("sep3", 0), ("sep3", 1))
ONLY_BEFORE_PREVIOUS = block(("sep3", 1), ("max_pool", 1))


def architecture(blocks: tuple[Block, ...], *levels: int, decoder: bool = False) -> Architecture:
    space = AutoDeepLab(layers=len(levels), blocks=len(blocks), filters=FILTERS, head_filters=4, decoder=decoder)
    return space.architecture(Backbone(blocks=blocks, levels=levels), 3)


def names(architecture: Architecture) -> set[str]:
    return {node.name for node in architecture.nodes}


def resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)


def as_the_paper_says(network: Network, choice: Backbone, image: Tensor) -> Tensor:
    """The logits, with layers, states and edges computed in turn by the modules of their names."""
    modules = dict(network.named_modules())

    def size(level: int) -> tuple[int, ...]:
        return tuple(ceil(length / (4 << level)) for length in image.shape[-2:])

    stride2 = modules["backbone.stem.conv1"](modules["backbone.stem.conv0"](image))
    outputs, before = [stride2, modules["backbone.stem.conv2"](stride2)], 0
    for layer, level in enumerate(choice.levels, start=1):
        states: dict[int, Tensor] = {}
        for state in (0, 1):
            if match_channels := modules.get(f"backbone.layer{layer}.state{state}"):
                states[state] = match_channels(resized(outputs[-1 - state], size(min(before, level))))
        for index, pair in enumerate(choice.blocks if states else ()):
            total = torch.zeros(len(image), FILTERS << level, *size(level), dtype=image.dtype)
            for name, edge in (("first", pair.first), ("second", pair.second)):
                if edge.op != "zero":
                    x = states[edge.state]
                    for op in modules[f"backbone.layer{layer}.block{index}.{name}"].children():
                        x = op(x)
                    total = total + x
            states[2 + index] = total
        built = [states[2 + index] for index in range(len(choice.blocks)) if states]
        outputs.append(torch.cat(built, 1) if built else torch.empty(0))  # a layer that no state reads is not built
        before = level
    features = F.relu(outputs[-1])
    branches = [modules[f"cell.{name}"](features) for name in ("conv1x1", "atrous", "image_pool")]
    logits = modules["head.logits"](modules["cell.projection"](torch.cat(branches, 1)))
    return resized(logits, tuple(image.shape[-2:]))


@given(cells(3), st.integers(1, 5), st.randoms(use_true_random=False))
@settings(max_examples=30)
@torch.no_grad()
def test_the_network_computes_what_the_paper_says(blocks: tuple[Block, ...], layers: int, rng: random.Random) -> None:
    levels = AutoDeepLab(layers=layers).sample(rng).levels
    torch.manual_seed(0)
    network = architecture(blocks, *levels).network().double().eval()
    image = torch.randn(1, 3, 37, 70, dtype=torch.float64)
    torch.testing.assert_close(
        network(image), as_the_paper_says(network, Backbone(blocks=blocks, levels=levels), image)
    )


def test_the_stem_has_64_filters_or_as_many_as_wished() -> None:
    for options, filters in (({}, 64), ({"stem_filters": 6}, 6)):
        space = AutoDeepLab(layers=1, blocks=1, filters=FILTERS, head_filters=4, **options)
        modules = dict(space.architecture(Backbone(blocks=(PLAIN,), levels=(0,)), 3).network().named_modules())
        stem = [modules[f"backbone.stem.conv{index}"] for index in range(3)]
        weights = [next(conv.parameters()).shape[:2] for conv in stem]
        assert weights == [(filters, 3), (filters, filters), (2 * filters, filters)]


def test_a_layer_that_goes_down_strides_and_one_that_goes_up_resizes_first() -> None:
    nodes = architecture((PLAIN,), 1, 0)
    assert {"backbone.layer1.resize0", "backbone.layer2.resize1"}.isdisjoint(names(nodes))
    assert nodes["backbone.layer1.resize1"].inputs == ("backbone.stem.conv1", "backbone.stem.conv2")
    assert nodes["backbone.layer1.state0"].inputs == ("backbone.stem.conv2",)
    assert nodes["backbone.layer2.resize0"].inputs == ("backbone.layer1.concat", "backbone.stem.conv2")
    assert nodes["backbone.layer2.state1"].inputs == ("backbone.stem.conv2",)
    strides = {name: nodes[f"backbone.{name}"].op.stride for name in ("layer1.block0.first.0", "layer2.block0.first.0")}
    assert strides == {"layer1.block0.first.0": 2, "layer2.block0.first.0": 1}
    shapes = {node.name: node.shape for node in nodes.describe((65, 97)).nodes}
    assert shapes["backbone.layer1.concat"] == (2 * FILTERS, 9, 13)
    assert shapes["backbone.layer2.concat"] == (FILTERS, 17, 25)


def test_only_operators_on_the_layers_before_stride() -> None:
    nodes = architecture((PLAIN, block(("max_pool", 2), ("atrous3", 1))), 1)
    assert nodes["backbone.layer1.block1.first.0"].op.stride == 1
    assert nodes["backbone.layer1.block1.second.0"].op.stride == 2


def test_zero_edges_are_left_out() -> None:
    nodes = architecture((PLAIN, block(("zero", 0), ("sep3", 2)), block(("zero", 0), ("zero", 2))), 0)
    assert nodes["backbone.layer1.concat"].inputs == (
        "backbone.layer1.block0.sum",
        "backbone.layer1.block1.second.1",
        "backbone.layer1.block2.zero.0",
    )
    assert isinstance(nodes["backbone.layer1.block2.zero.0"].op, Zero)


def test_what_nothing_reads_is_not_built() -> None:
    built = names(architecture((ONLY_BEFORE_PREVIOUS,), 0, 0, 1, 1, decoder=True))
    assert {"backbone.layer2.concat", "backbone.layer4.concat"} <= built
    assert {"backbone.layer1.concat", "backbone.layer3.concat", "backbone.layer4.state0"}.isdisjoint(built)


def test_a_finer_map_is_halved_where_no_map_of_its_new_size_is_at_hand() -> None:
    nodes = architecture((ONLY_BEFORE_PREVIOUS,), 0, 0, 1, 2)
    assert nodes["backbone.layer4.resize1"].op == Resize(factor=0.5)
    shapes = {node.name: node.shape for node in nodes.describe((65, 97)).nodes}
    assert shapes["backbone.layer4.concat"][1:] == (5, 7)


@pytest.mark.parametrize(
    ("levels", "low_level"),
    [((0, 0, 1), "backbone.layer2.concat"), ((1, 0, 0), "backbone.stem.conv2"), ((0, 0), "backbone.layer2.concat")],
)
def test_low_level_features_are_the_last_before_the_path_leaves_stride_4(
    levels: tuple[int, ...], low_level: str
) -> None:
    assert architecture((PLAIN,), *levels, decoder=True)["decoder.low_level"].inputs == (low_level,)


@pytest.mark.parametrize(("level", "rate"), [(0, 24), (1, 12), (2, 6), (3, 3)])
def test_the_heads_atrous_rate_is_96_pixels(level: int, rate: int) -> None:
    levels = (0, *range(level + 1))
    op = architecture((PLAIN,), *levels)["cell.atrous"].op
    assert isinstance(op, Conv)
    assert op.rate == (rate, rate)
    assert f"cell.atrous{rate}" in names(architecture((PLAIN,), *levels, decoder=True))


@given(cells(3), st.integers(1, 8), st.booleans(), st.randoms(use_true_random=False))
def test_every_point_is_a_network_without_loose_ends(
    blocks: tuple[Block, ...], layers: int, decoder: bool, rng: random.Random
) -> None:
    only_one = tuple(
        Block(first=b.first.model_copy(update={"state": 1}), second=b.second.model_copy(update={"state": 1}))
        for b in blocks
    )
    for cell in (blocks, only_one):
        assert architecture(cell, *AutoDeepLab(layers=layers).sample(rng).levels, decoder=decoder).classes == 3
