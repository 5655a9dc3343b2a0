"""The costs of a relaxation's parts, and the expected cost of the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nasseg.graph import Architecture
from nasseg.ops import Add, Concat, Op, Resize
from nasseg.space.relaxation import OpCost, Shape
from search_spaces.auto_deeplab.choice import LEVELS, Backbone, Block, Edge
from search_spaces.auto_deeplab.network import segmenter
from search_spaces.auto_deeplab.operators import OPERATORS, match_channels, operator
from search_spaces.auto_deeplab.trellis import Flow, Place, Transition, Trellis, level_sizes

PLAIN = Block(first=Edge(state=0, op="skip"), second=Edge(state=1, op="skip"))


@dataclass(frozen=True)
class _Cell:
    """The costs of the cell of one move: fixed, by origin of H^{l-2}, and by (edges, operators)."""

    fixed: float
    before: Mapping[Place, float]
    operators: Tensor


class Prices:
    """The cost of every part of a trellis's networks, for images of `size`; `fixed` is added for every network."""

    def __init__(self, trellis: Trellis, classes: int, cost: OpCost, size: tuple[int, int], fixed: float = 0.0) -> None:
        self._trellis, self._cost, self._fixed = trellis, cost, fixed
        dimensions = trellis.dimensions
        height, width = size
        self._sizes = level_sizes((-(-height // 4), -(-width // 4)))
        self._size2 = (-(-height // 2), -(-width // 2))
        self.cells = {move: self._cell(move) for move in trellis.moves}
        self.stem = 0.0
        self.heads: dict[tuple[int, int], float] = {}
        for first in (0, 1):
            for last in range(LEVELS):
                levels = _path(first, last, dimensions.layers)
                if levels is None:
                    continue
                choice = Backbone(blocks=(PLAIN,) * dimensions.blocks, levels=levels)
                parts = self._parts(segmenter("priced", choice, classes, dimensions), size)
                self.stem = sum(price for name, price in parts.items() if name.startswith("backbone.stem."))
                self.heads[first, last] = sum(
                    price
                    for name, price in parts.items()
                    if name == "backbone.activation" or not name.startswith("backbone.")
                )

    def total(self, flow: Flow, alpha: Tensor) -> Tensor:
        """Compute the expected cost, a scalar with gradients: each part times the probability that a path needs it."""
        layers = self._trellis.dimensions.layers
        total = alpha.new_tensor(self._fixed + self.stem)
        for move, cell in self.cells.items():
            cost = cell.fixed + (alpha * cell.operators.to(alpha.device)).sum()
            for place, price in cell.before.items():
                cost = cost + flow.came_from(move, place) * price
            total = total + flow.at[move.layer - 1, move.source] * flow.beta[move] * cost
        ends = {first: flow.reached_from((1, first)) for first in (0, 1)}
        for (first, last), price in self.heads.items():
            total = total + flow.at[1, first] * ends[first][layers, last] * price
        return total

    def _cell(self, move: Transition) -> _Cell:
        """Compute costs by the shapes in the network of a path, as `network.py` builds it."""
        trellis, dimensions = self._trellis, self._trellis.dimensions
        channels = dimensions.filters << move.target
        inside, outside = self._sizes[min(move.source, move.target)], self._sizes[move.target]
        strided = move.target > move.source

        def brought(place: Place) -> float:
            """Resize, if the map has another size, and match the channels."""
            shape = (trellis.channels(place), *(self._size2 if place[1] < 0 else self._sizes[place[1]]))
            wanted = (shape[0], *inside)
            resize = 0.0 if shape == wanted else self._cost(Resize(), (shape, wanted))
            return resize + self._cost(match_channels(channels), (wanted,))

        operators = torch.zeros(len(trellis.edges), len(OPERATORS))
        for row, (_, state) in enumerate(trellis.edges):
            at = inside if state < 2 else outside
            for column, name in enumerate(OPERATORS):
                if name != "zero":
                    ops = operator(name, channels, 2 if strided and state < 2 else 1)
                    operators[row, column] = self._chain(ops, (channels, *at), (channels, *outside))
        output: Shape = (channels, *outside)
        sums = dimensions.blocks * self._cost(Add(), (output, output))
        joined = self._cost(Concat(), (output,) * dimensions.blocks)
        return _Cell(
            fixed=brought((move.layer - 1, move.source)) + sums + joined,
            before={place: brought(place) for place in trellis.before(move)},
            operators=operators,
        )

    def _chain(self, ops: Sequence[Op], first: Shape, rest: Shape) -> float:
        return sum(self._cost(op, (rest if index else first,)) for index, op in enumerate(ops))

    def _parts(self, architecture: Architecture, size: tuple[int, int]) -> dict[str, float]:
        """Compute the cost of every node of a network."""
        shapes = {node.name: node.shape for node in architecture.describe(size).nodes}
        return {
            node.name: self._cost(node.op, [shapes[source] for source in node.inputs])
            for node in architecture.ordered
            if node.inputs
        }


def _path(first: int, last: int, layers: int) -> tuple[int, ...] | None:
    """Find levels that begin with `first` and end with `last`; `None` if no path of that length does."""
    step = 1 if last > first else -1
    levels = [first + step * max(0, abs(last - first) - (layers - 1 - index)) for index in range(layers)]
    return tuple(levels) if levels[0] == first else None
