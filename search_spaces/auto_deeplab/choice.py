"""One point of the space: a cell, and the path of strides that its copies are laid along."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from nasseg.space import Choice
from search_spaces.auto_deeplab.operators import OperatorName

LEVELS = 4
"""Level 0 is stride 4, level 3 is stride 32."""
PREVIOUS, BEFORE_PREVIOUS = 0, 1
"""The states of a cell that come from the two layers before, H^{l-1} and H^{l-2}; state 2 + i is block i."""


class Edge(Choice):
    """An operator on a state of the cell."""

    state: Annotated[int, Field(ge=0)]
    op: OperatorName


class Block(Choice):
    """The sum of two edges."""

    first: Edge
    second: Edge

    @property
    def edges(self) -> tuple[Edge, Edge]:
        """Both."""
        return self.first, self.second


class Backbone(Choice):
    """A cell of blocks, and the level of each layer."""

    blocks: Annotated[tuple[Block, ...], Field(min_length=1)]
    levels: Annotated[tuple[Annotated[int, Field(ge=0, lt=LEVELS)], ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _states_come_before(self) -> Backbone:
        for index, block in enumerate(self.blocks):
            for edge in block.edges:
                if edge.state >= index + 2:
                    raise ValueError(
                        f"block {index} has an edge from state {edge.state}, but must read a state below {index + 2}: "
                        "0 and 1 are the layers before, 2 + i is block i"
                    )
        return self

    @model_validator(mode="after")
    def _levels_are_a_path(self) -> Backbone:
        for layer, (before, level) in enumerate(pairwise((0, *self.levels)), start=1):
            if abs(level - before) > 1:
                raise ValueError(
                    f"layer {layer} is at stride {4 << level} after stride {4 << before}, but a stride may stay, "
                    "double or halve; the stem is at stride 4"
                )
        return self
