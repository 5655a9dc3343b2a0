"""A point of the space: a cell, and the path of strides along which its copies are laid."""

from __future__ import annotations

from nasseg.space import Choice
from search_spaces.auto_deeplab.operators import OperatorName

LEVELS = 4
"""Level 0 is stride 4, level 3 is stride 32."""
PREVIOUS, BEFORE_PREVIOUS = 0, 1
"""The states of a cell that come from the two layers before, H^{l-1} and H^{l-2}; state 2 + i is block i."""


class Edge(Choice):
    """An operator on a state of the cell."""

    state: int
    op: OperatorName


class Block(Choice):
    """The sum of two edges."""

    first: Edge
    second: Edge

    @property
    def edges(self) -> tuple[Edge, Edge]:
        """Both edges."""
        return self.first, self.second


class Backbone(Choice):
    """A cell of blocks, and the level of each layer."""

    blocks: tuple[Block, ...]
    levels: tuple[int, ...]
