"""The relaxation of the space: cells of mixed operators on a trellis of strides (arXiv 1901.02985, §3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from baselines.heads import classifier
from nasseg.graph import Architecture, Builder
from nasseg.network import Network
from nasseg.ops import Activation
from nasseg.ops.layers import BatchNorm, bilinear
from nasseg.space.relaxation import OpCost, Relaxation, RelaxationOptions
from nasseg.space.weighted_graph import WeightedGraph
from search_spaces.auto_deeplab import paths
from search_spaces.auto_deeplab.choice import Backbone
from search_spaces.auto_deeplab.decode import strongest_cell, strongest_path
from search_spaces.auto_deeplab.dimensions import Dimensions
from search_spaces.auto_deeplab.drawing import cell_graph, trellis_graph
from search_spaces.auto_deeplab.mixed_cell import MixedCell
from search_spaces.auto_deeplab.network import search_head, stem
from search_spaces.auto_deeplab.operators import OPERATORS
from search_spaces.auto_deeplab.prices import Prices
from search_spaces.auto_deeplab.trellis import STEM, STEM_STRIDE2, Flow, Place, Transition, Trellis, level_sizes

ALPHA_SCALE = 1e-3
"""Standard deviation of the initial α and β (§5.1)."""


class Supernet(Relaxation[Backbone]):
    """All networks of some dimensions in one.

    α weighs the operators of each edge of the cell, which all cells share; β weighs the moves out of each level of
    each layer: both are softmaxed, so that the β out of one place sum to one, at the borders of the trellis too. With
    p(l, s) the probability that a path drawn by β is at level s in layer l:

        H(l, t) = Σ_s β(l, s→t) · Cell(H(l-1, s), H(l-2, ·))        (equation 6)
        logits  = Σ_t p(L, t) · Head_t(H(L, t))

    Two things differ from the paper. It feeds the cell H^{l-2} at the level t, which the decoded network mostly lacks,
    as its path was at some level u then. Here the cell gets the expectation over u: the maps at all levels u, brought
    to the cell's size and channels, weighted by the probability that a path at s came from u; and the heads are
    weighted by p for the same reason. A relaxation whose mixtures are all certain therefore computes exactly what the
    decoded network does. Second, the paper's β start equal for all moves, so paths along the borders, which have fewer
    moves to choose from, start more likely, and a short search decodes one of them whatever the data. Here the
    logarithm of the number of paths that a move leads to is added to β, so all paths start equally likely.

    Each move has its own cell, as operators have stride 2 if it goes down.

    (N, 3, H, W) → (N, classes, H, W), through the three-branch ASPP of the paper's search at each final level.
    """

    def __init__(self, dimensions: Dimensions, classes: int, options: RelaxationOptions) -> None:
        super().__init__()
        self.dimensions, self.options, self.classes = dimensions, options, classes
        self.trellis = Trellis(dimensions)
        self.moves, self.edges = self.trellis.moves, self.trellis.edges
        self.alpha = nn.Parameter(ALPHA_SCALE * torch.randn(len(self.edges), len(OPERATORS)))
        self.beta = nn.Parameter(ALPHA_SCALE * torch.randn(len(self.moves)))
        ways = [paths.count(dimensions.layers - move.layer, move.target) for move in self.moves]
        self.register_buffer("log_ways", torch.tensor(ways).log(), persistent=False)
        self.stem = _stem_architecture(dimensions.stem_filters).network()
        self.cells = nn.ModuleDict({_name(move): self._cell(move) for move in self.moves})
        final = sorted({move.target for move in self.moves if move.layer == dimensions.layers})
        self.heads = nn.ModuleDict({str(level): self._head(level) for level in final})
        self._prices: Prices | None = None

    def _cell(self, move: Transition) -> MixedCell:
        return MixedCell(
            self.trellis.channels((move.layer - 1, move.source)),
            {str(level): self.trellis.channels((layer, level)) for layer, level in self.trellis.before(move)},
            self.dimensions.filters << move.target,
            self.dimensions.blocks,
            strided=move.target > move.source,
            partial_channels=self.options.partial_channels,
        )

    def _head(self, level: int) -> Network:
        g = Builder(f"head at stride {4 << level}")
        image = g.input()
        features = g.input(self.trellis.channels((self.dimensions.layers, level)), name="features")
        x = search_head(g, g.add("activation", Activation(), features), level, self.dimensions.head_filters)
        return g.build(classifier(g, x, image, self.classes)).network()

    # --- the mixtures ----------------------------------------------------------------------------------------------

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Return α, one row per edge and one column per operator, and β, one number per move."""
        return [self.alpha, self.beta]

    def alpha_weights(self) -> Tensor:
        """Compute α softmaxed over the operators of each edge (equation 4): (edges, operators)."""
        return self.alpha.softmax(dim=1)

    def beta_weights(self) -> Tensor:
        """Compute β softmaxed over the moves out of each place (equation 7): (moves,). β = 0 makes all paths equal."""
        places = sorted({(move.layer, move.source) for move in self.moves})
        groups = torch.tensor([places.index((move.layer, move.source)) for move in self.moves], device=self.beta.device)
        beta = self.beta + cast(Tensor, self.log_ways)
        strengths = (beta - beta.detach().max()).exp()
        totals = torch.zeros(len(places), device=self.beta.device).index_add(0, groups, strengths)
        return strengths / totals[groups]

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (N, classes, H, W)."""
        return self.mixed(images, self.alpha_weights(), self.beta_weights())

    def mixed(self, images: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        """Compute logits under the given weights: `alpha` (edges, operators), `beta` (moves,)."""
        flow = Flow(self.moves, beta)
        stem = self.stem.outputs({"image": images})
        maps: dict[Place, Tensor] = dict(zip((STEM_STRIDE2, STEM), stem.values(), strict=True))
        sizes = level_sizes((maps[STEM].shape[-2], maps[STEM].shape[-1]))
        for layer in range(1, self.dimensions.layers + 1):
            arriving: dict[Place, Tensor] = {}
            for move in (move for move in self.moves if move.layer == layer):
                output = flow.beta[move] * self._run_cell(move, maps, sizes, flow, alpha)
                place = (layer, move.target)
                arriving[place] = arriving[place] + output if place in arriving else output
            maps = {place: x for place, x in maps.items() if place[0] == layer - 1} | arriving
        logits = [
            flow.at[self.dimensions.layers, int(level)] * head(images, maps[self.dimensions.layers, int(level)])
            for level, head in self.heads.items()
        ]
        return torch.stack(logits).sum(dim=0)

    def _run_cell(
        self,
        move: Transition,
        maps: Mapping[Place, Tensor],
        sizes: Sequence[tuple[int, int]],
        flow: Flow,
        alpha: Tensor,
    ) -> Tensor:
        cell = self.cells[_name(move)]
        size = sizes[min(move.source, move.target)]
        previous = bilinear(maps[move.layer - 1, move.source], size)
        before = {
            str(place[1]): (flow.came_from(move, place), bilinear(maps[place], size))
            for place in self.trellis.before(move)
        }
        if not (self.options.checkpoint_activations and torch.is_grad_enabled()):
            return cast(Tensor, cell(previous, before, alpha))

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _statistics_left_alone(cell)

        output = checkpoint(
            cell, previous, before, alpha, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
        )
        return cast(Tensor, output)

    # --- cost ------------------------------------------------------------------------------------------------------

    def price(self, cost: OpCost, size: tuple[int, int], fixed: float = 0.0) -> None:
        """Set the cost of each operator for images of `size` (height, width); `fixed` is added for every network."""
        self._prices = Prices(self.trellis, self.classes, cost, size, fixed)

    def expected_cost(self) -> Tensor:
        """Compute the expected cost under the mixtures; if they are certain, exactly the decoded network's."""
        return self.cost_of(self.alpha_weights(), self.beta_weights())

    def cost_of(self, alpha: Tensor, beta: Tensor) -> Tensor:
        """Compute the expected cost under the given weights: `alpha` (edges, operators), `beta` (moves,)."""
        if self._prices is None:
            raise ValueError("the relaxation has no prices; call price before expected_cost")
        return self._prices.total(Flow(self.moves, beta), alpha)

    # --- results ---------------------------------------------------------------------------------------------------

    def decode(self) -> Backbone:
        """Return the strongest cell and the most likely path."""
        alpha, beta = self.alpha_weights().detach().cpu(), self.beta_weights().detach().cpu()
        return Backbone(
            blocks=strongest_cell(self.dimensions.blocks, dict(zip(self.edges, alpha.tolist(), strict=True))),
            levels=strongest_path(dict(zip(self.moves, beta.tolist(), strict=True))),
        )

    def graphs(self) -> tuple[WeightedGraph, ...]:
        """Draw the trellis with its β, and the cell with its α."""
        alpha, beta = self.alpha_weights().detach().cpu(), self.beta_weights().detach().cpu()
        choice = self.decode()
        return (
            trellis_graph(dict(zip(self.moves, beta.tolist(), strict=True)), choice),
            cell_graph(dict(zip(self.edges, alpha.tolist(), strict=True)), choice),
        )


def _name(move: Transition) -> str:
    return f"layer{move.layer}_{move.source}to{move.target}"


def _stem_architecture(filters: int) -> Architecture:
    g = Builder("stem")
    image = g.input()
    with g.scope("backbone"):
        maps = stem(g, image, filters)
    return g.build(*maps)


@contextmanager
def _statistics_left_alone(module: nn.Module) -> Iterator[None]:
    """Keep a second forward pass in training from updating the running statistics again."""
    norms = {
        norm: (norm.momentum, norm.num_batches_tracked) for norm in module.modules() if isinstance(norm, BatchNorm)
    }
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in norms.items():
            norm.momentum, norm.num_batches_tracked = momentum, batches
