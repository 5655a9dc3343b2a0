"""The relaxation against the networks that it holds, the papers' equations, and PyTorch's own gradients."""

import random
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nasseg.cost import op_madds
from nasseg.network import Network
from nasseg.search.relaxation import RelaxationOptions
from search_spaces.auto_deeplab import AutoDeepLab, paths
from search_spaces.auto_deeplab.choice import Backbone, Block, Edge
from search_spaces.auto_deeplab.decode import Transition
from search_spaces.auto_deeplab.mixed_cell import MixedCell, edge, side_by_side
from search_spaces.auto_deeplab.operators import OPERATORS, operator
from search_spaces.auto_deeplab.supernet import Supernet

CLASSES = 3
SIZE = (33, 46)
"""Odd at every stride, so that no resizing fits by chance."""


def small_space(layers: int = 4, blocks: int = 2, **options: object) -> AutoDeepLab:
    return AutoDeepLab.model_validate(
        {"layers": layers, "blocks": blocks, "filters": 2, "head_filters": 4, "decoder": False, **options}
    )


def supernet(space: AutoDeepLab, seed: int = 0, **options: object) -> Supernet:
    """A relaxation whose norms are not the identity."""
    torch.manual_seed(seed)
    relaxed = space.relaxation(CLASSES, RelaxationOptions.model_validate(options))
    for module in relaxed.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1, std=0.2)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return relaxed


def decodable(space: AutoDeepLab, seed: int) -> Backbone:
    """A point that a relaxation can decode to: two states a block, and no zero."""
    rng = random.Random(seed)
    blocks = []
    for index in range(space.blocks):
        first, second = sorted(rng.sample(range(index + 2), 2))
        names = [rng.choice([name for name in OPERATORS if name != "zero"]) for _ in range(2)]
        blocks.append(Block(first=Edge(state=first, op=names[0]), second=Edge(state=second, op=names[1])))
    return Backbone(blocks=tuple(blocks), levels=paths.sample(space.layers, rng))


def moves_of(choice: Backbone) -> list[Transition]:
    return [Transition(layer, *pair) for layer, pair in enumerate(pairwise((0, *choice.levels)), start=1)]


def certain(relaxed: Supernet, choice: Backbone) -> tuple[Tensor, Tensor]:
    """The weights α and β that mean one network: zero on the edges, nothing on the moves that it does not have."""
    alpha = torch.zeros(len(relaxed.edges), len(OPERATORS))
    alpha[:, OPERATORS.index("zero")] = 1
    for index, block in enumerate(choice.blocks):
        for chosen in block.edges:
            row = alpha[edge(index, chosen.state)]
            row.zero_()[OPERATORS.index(chosen.op)] = 1
    beta = torch.zeros(len(relaxed.moves))
    beta[[relaxed.moves.index(move) for move in moves_of(choice)]] = 1
    return alpha, beta


def decoded(relaxed: Supernet, choice: Backbone) -> Network:
    """The network of `choice` with the relaxation's weights."""
    network = relaxed.space.architecture(choice, CLASSES).network()
    state: dict[str, Tensor] = dict(relaxed.stem.state_dict())
    head = relaxed.heads[str(choice.levels[-1])].state_dict()
    state |= {name: value for name, value in head.items() if not name.startswith("activation")}
    before: dict[int, int] = {-1: -1, 0: 0, **dict(enumerate(choice.levels, start=1))}
    for move in moves_of(choice):
        cell = relaxed.cells[f"layer{move.layer}_{move.source}to{move.target}"]
        assert isinstance(cell, MixedCell)
        at = f"backbone.layer{move.layer}"
        parts = {f"{at}.state0": cell.state0, f"{at}.state1": cell.state1[str(before[move.layer - 2])]}
        for name, module in parts.items():
            state |= renamed(list(module.state_dict().values()), network.get_submodule(name), name)
        for index, block in enumerate(choice.blocks):
            for place, chosen in zip(("first", "second"), block.edges, strict=True):
                readers = cell.readers(chosen.state)
                values = [
                    value if value.ndim == 0 else value.chunk(len(readers))[readers.index(index)]
                    for value in cell.operators[chosen.state][chosen.op].state_dict().values()
                ]
                name = f"{at}.block{index}.{place}"
                if values:
                    state |= renamed(values, network.get_submodule(name), name)
    network.load_state_dict(state)
    return network


def renamed(values: list[Tensor], module: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in zip(module.state_dict(), values, strict=True)}


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("seed", range(12))
def test_certain_mixtures_are_the_decoded_network(seed: int, training: bool) -> None:
    space = small_space(layers=2 + seed % 5, blocks=1 + seed % 3)
    relaxed = supernet(space, seed)
    choice = decodable(space, seed)
    network = decoded(relaxed, choice)
    relaxed.train(training), network.train(training)
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(
            relaxed.mixed(images, *certain(relaxed, choice)), network(images), rtol=1e-4, atol=1e-4
        )


@settings(max_examples=25, deadline=None)
@given(layers=st.integers(1, 7), blocks=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_certain_mixtures_cost_what_the_decoded_network_costs(layers: int, blocks: int, seed: int) -> None:
    space = small_space(layers, blocks, decoder=bool(seed % 2))
    choice = decodable(space, seed)
    with torch.device("meta"):
        relaxed = space.relaxation(CLASSES, RelaxationOptions())
    relaxed.price(op_madds, SIZE)
    expected = space.architecture(choice, CLASSES).describe(SIZE).madds
    assert relaxed.cost_of(*certain(relaxed, choice)).item() == pytest.approx(expected, rel=1e-6)
