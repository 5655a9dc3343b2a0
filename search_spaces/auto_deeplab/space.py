"""The Auto-DeepLab space (Liu et al., arXiv 1901.02985, §3): a cell of blocks, and the path of its copies' strides."""

from __future__ import annotations

from nasseg.graph import Architecture
from nasseg.space import Decide, Space
from nasseg.space.relaxation import RelaxationOptions
from nasseg.space.weighted_graph import WeightedGraph
from search_spaces.auto_deeplab import paths
from search_spaces.auto_deeplab.canonical import canonical_blocks
from search_spaces.auto_deeplab.choice import BEFORE_PREVIOUS, PREVIOUS, Backbone, Block, Edge
from search_spaces.auto_deeplab.dimensions import Dimensions
from search_spaces.auto_deeplab.drawing import path_graph
from search_spaces.auto_deeplab.network import segmenter
from search_spaces.auto_deeplab.operators import OPERATORS
from search_spaces.auto_deeplab.published import PUBLISHED
from search_spaces.auto_deeplab.supernet import Supernet

STRIDE_16 = 2
"""The level of stride 16."""


class AutoDeepLab(Space[Backbone], Dimensions):
    """Cells of `blocks` blocks along a path of `layers` layers: `auto_deeplab:layers=8,blocks=3,filters=8`."""

    @property
    def drawn_place(self) -> str:
        """The last copy of the cell: a cell that does not read H^{l-1} skips some of the others."""
        return f"backbone.layer{self.layers}"

    def decisions(self, decide: Decide) -> None:
        """Take the state and operator of each edge of the cell (§3.1), then the level of each layer, given the last."""
        for block in range(self.blocks):
            for edge in ("first", "second"):
                decide.ordered(f"blocks.{block}.{edge}.state", range(block + 2))
                decide.category(f"blocks.{block}.{edge}.op", OPERATORS)
        level = 0
        for layer in range(self.layers):
            moves = paths.next_levels(level)
            ways = [paths.count(self.layers - 1 - layer, move) for move in moves]
            level = decide.ordered(f"levels.{layer}", moves, ways=ways, given=level)

    def references(self) -> dict[str, Backbone]:
        """Return a plain network (separable convolutions, stride 16 as soon as possible) and the published one.

        The published cell and path are cut to the space's size; if that is larger, the cell's blocks are repeated, and
        the path stays at its last level.
        """
        plain = Block(first=Edge(state=PREVIOUS, op="sep3"), second=Edge(state=BEFORE_PREVIOUS, op="sep3"))
        found, levels = PUBLISHED.blocks, PUBLISHED.levels
        return {
            "plain": Backbone(
                blocks=(plain,) * self.blocks,
                levels=tuple(min(layer, STRIDE_16) for layer in range(1, self.layers + 1)),
            ),
            "auto_deeplab": Backbone(
                blocks=tuple(found[index % len(found)] for index in range(self.blocks)),
                levels=(*levels, *(levels[-1:] * self.layers))[: self.layers],
            ),
        }

    def canonical(self, choice: Backbone) -> Backbone:
        """Keep the path, and normalise the order of blocks and edges and the states of zero edges in the cell."""
        return Backbone(blocks=canonical_blocks(choice.blocks), levels=choice.levels)

    def graphs(self, choice: Backbone) -> tuple[WeightedGraph, ...]:
        """Draw the path on the trellis of strides."""
        return (path_graph(choice),)

    def architecture(self, choice: Backbone, classes: int) -> Architecture:
        """Build stem, cells and head."""
        return segmenter("auto_deeplab", choice, classes, self)

    def relaxation(self, classes: int, options: RelaxationOptions) -> Supernet:
        """Build all of the space's networks in one, to be searched by gradient (§3.3)."""
        return Supernet(self, classes, options)
