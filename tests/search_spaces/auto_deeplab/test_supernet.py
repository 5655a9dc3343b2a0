"""The relaxation against the networks that it holds, the papers' equations, and PyTorch's own gradients."""

import math
import random
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from nasseg.cost import op_madds
from nasseg.network import Network
from nasseg.space.relaxation import RelaxationOptions
from search_spaces.auto_deeplab import AutoDeepLab
from search_spaces.auto_deeplab.choice import Backbone, Block, Edge
from search_spaces.auto_deeplab.mixed_cell import MixedCell, edge, side_by_side
from search_spaces.auto_deeplab.network import segmenter
from search_spaces.auto_deeplab.operators import OPERATORS, operator
from search_spaces.auto_deeplab.supernet import Supernet
from search_spaces.auto_deeplab.trellis import Transition
from tests.search_spaces.auto_deeplab.made_up import all_paths

CLASSES = 3
SIZE = (33, 46)
"""Odd at every stride, so that no resizing fits by chance."""


def small_space(layers: int = 4, blocks: int = 2, **options: object) -> AutoDeepLab:
    sizes = {"layers": layers, "blocks": blocks, "filters": 2, "stem_filters": 5, "head_filters": 4, "decoder": False}
    return AutoDeepLab.model_validate({**sizes, **options})


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
    return Backbone(blocks=tuple(blocks), levels=space.sample(rng).levels)


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
    network = segmenter("decoded", choice, CLASSES, relaxed.dimensions).network()
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
@pytest.mark.parametrize("seed", range(6))
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


@pytest.mark.parametrize(("layers", "blocks", "decoder"), [(1, 1, True), (2, 3, False), (4, 2, True), (6, 2, False)])
def test_certain_mixtures_cost_what_the_decoded_network_costs(layers: int, blocks: int, decoder: bool) -> None:
    space = small_space(layers, blocks, decoder=decoder)
    with torch.device("meta"):
        relaxed = space.relaxation(CLASSES, RelaxationOptions())
    fixed = 123_456.0
    relaxed.price(op_madds, SIZE, fixed)
    for seed in range(10):
        choice = decodable(space, seed)
        expected = fixed + space.architecture(choice, CLASSES).describe(SIZE).madds
        assert relaxed.cost_of(*certain(relaxed, choice)).item() == pytest.approx(expected, rel=1e-6)


def test_a_decoded_choice_is_certain_where_the_weights_are() -> None:
    space = small_space(layers=5, blocks=3)
    relaxed = supernet(space)
    for seed in range(20):
        choice = decodable(space, seed)
        alpha, beta = certain(relaxed, choice)
        relaxed.alpha.data.copy_(20 * alpha)
        relaxed.beta.data.copy_(20 * beta)
        assert relaxed.decode() == choice


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_moves_out_of_each_place_sum_to_one(layers: int) -> None:
    relaxed = supernet(small_space(layers, blocks=1))
    nn.init.normal_(relaxed.beta, std=3)
    totals: dict[tuple[int, int], float] = {}
    for move, weight in zip(relaxed.moves, relaxed.beta_weights().tolist(), strict=True):
        assert 0 < weight < 1
        totals[move.layer, move.source] = totals.get((move.layer, move.source), 0) + weight
    assert set(totals) == {(layer, level) for layer in range(1, layers + 1) for level in range(min(layer, 4))}
    assert list(totals.values()) == pytest.approx([1.0] * len(totals))
    assert relaxed.alpha_weights().sum(dim=1).tolist() == pytest.approx([1.0] * len(relaxed.edges))


@pytest.mark.parametrize("layers", [1, 3, 5])
def test_before_training_all_paths_are_equally_likely(layers: int) -> None:
    relaxed = supernet(small_space(layers, blocks=1))
    nn.init.zeros_(relaxed.beta)
    beta = dict(zip(relaxed.moves, relaxed.beta_weights().tolist(), strict=True))
    found = all_paths(layers)
    for levels in found:
        moves = [Transition(layer, *pair) for layer, pair in enumerate(pairwise((0, *levels)), start=1)]
        assert math.prod(beta[move] for move in moves) == pytest.approx(1 / len(found), rel=1e-5)


def test_every_parameter_gets_a_gradient() -> None:
    relaxed = supernet(small_space(layers=4, blocks=2)).train()
    logits = relaxed(torch.randn(2, 3, *SIZE))
    assert logits.shape == (2, CLASSES, *SIZE)
    logits.square().mean().backward()
    for name, parameter in relaxed.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert (relaxed.alpha.grad != 0).all()
    assert (relaxed.beta.grad != 0).all()


@pytest.mark.parametrize("decoder", [False, True])
def test_the_expected_cost_is_the_mean_over_drawn_networks(decoder: bool) -> None:
    """Enumerated: every path with its probability, and the mixture of operators on every edge."""
    space = small_space(layers=3, blocks=1, decoder=decoder)
    relaxed = supernet(space)
    nn.init.normal_(relaxed.alpha), nn.init.normal_(relaxed.beta)
    relaxed.price(op_madds, SIZE)
    beta = dict(zip(relaxed.moves, relaxed.beta_weights().tolist(), strict=True))
    alpha = relaxed.alpha_weights().tolist()
    total = 0.0
    for levels in all_paths(3):
        moves = [Transition(layer, *pair) for layer, pair in enumerate(pairwise((0, *levels)), start=1)]
        probability = torch.tensor([beta[move] for move in moves]).prod().item()
        for first, share in zip(OPERATORS, alpha[0], strict=True):
            for second, other in zip(OPERATORS, alpha[1], strict=True):
                block = Block(first=Edge(state=0, op=first), second=Edge(state=1, op=second))
                if "zero" in (first, second):
                    cost = relaxed.cost_of(*certain(relaxed, Backbone(blocks=(block,), levels=levels))).item()
                else:
                    cost = space.architecture(Backbone(blocks=(block,), levels=levels), CLASSES).describe(SIZE).madds
                total += probability * share * other * cost
    assert relaxed.expected_cost().item() == pytest.approx(total, rel=1e-5)
    relaxed.expected_cost().backward()
    assert (relaxed.beta.grad != 0).all()


def test_a_cost_needs_prices() -> None:
    with pytest.raises(ValueError, match="price"):
        supernet(small_space(1, 1)).expected_cost()


def test_cells_computed_again_in_the_backward_pass_change_nothing() -> None:
    space = small_space(layers=3, blocks=2)
    images = torch.randn(2, 3, *SIZE)
    results = []
    for again in (False, True):
        relaxed = supernet(space, checkpoint_activations=again).train()
        relaxed(images).square().mean().backward()
        gradients = [parameter.grad for parameter in relaxed.parameters()]
        results.append([*gradients, *relaxed.buffers()])
    assert all(torch.equal(kept, computed) for kept, computed in zip(*results, strict=True))


def test_partial_channels_pass_the_rest_by() -> None:
    torch.manual_seed(0)
    cell = MixedCell(3, {"0": 5}, channels=4, blocks=1, strided=False, partial_channels=2).eval()
    alpha = torch.zeros(2, len(OPERATORS))
    alpha[0, OPERATORS.index("skip")] = 1
    alpha[1, OPERATORS.index("zero")] = 1
    previous, before = torch.randn(1, 3, 4, 5), torch.randn(1, 5, 4, 5)
    with torch.no_grad():
        output = cell(previous, {"0": (torch.tensor(1.0), before)}, alpha)
        state0, state1 = cell.state0(previous), cell.state1["0"](before)
    expected = torch.stack(
        [state0[:, 0], state0[:, 2] + state1[:, 2], state0[:, 1], state0[:, 3] + state1[:, 3]], dim=1
    )
    torch.testing.assert_close(output, expected)
    with pytest.raises(ValueError, match="partial_channels is 3, but must divide"):
        MixedCell(3, {"0": 5}, channels=4, blocks=1, strided=False, partial_channels=3)


def test_partial_channels_run_on_the_whole_trellis() -> None:
    relaxed = supernet(small_space(layers=3, blocks=2), partial_channels=2).train()
    relaxed(torch.randn(2, 3, *SIZE)).square().mean().backward()
    assert (relaxed.alpha.grad != 0).all()


@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "zero"])
@pytest.mark.parametrize("stride", [1, 2])
def test_copies_side_by_side_are_the_operator_with_each_copys_weights(name: str, stride: int) -> None:
    torch.manual_seed(0)
    ops = operator(name, 4, stride)
    chain = nn.Sequential(*(op.build([4]) for op in ops))
    wide = side_by_side(chain, 3).eval()
    x = torch.randn(2, 4, 7, 6)
    copies = wide(x).chunk(3, dim=1) if list(wide.parameters()) else [wide(x)]
    for position, copy in enumerate(copies):
        values = [value if value.ndim == 0 else value.chunk(3)[position] for value in wide.state_dict().values()]
        chain.load_state_dict(dict(zip(chain.state_dict(), values, strict=True)))
        torch.testing.assert_close(copy, chain.eval()(x))
    if len(copies) == 3:
        assert not torch.equal(copies[0], copies[1])
