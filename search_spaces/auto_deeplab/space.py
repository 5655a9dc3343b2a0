"""The Auto-DeepLab space (Liu et al., arXiv 1901.02985, §3): a cell of blocks, and the path of its copies' strides."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError

from nasseg.errors import one_line
from nasseg.graph import Architecture
from nasseg.space import Space
from nasseg.space.relaxation import RelaxationOptions
from nasseg.space.space import Suggest
from nasseg.space.weighted_graph import WeightedGraph
from search_spaces.auto_deeplab import paths
from search_spaces.auto_deeplab.canonical import canonical_blocks
from search_spaces.auto_deeplab.choice import BEFORE_PREVIOUS, PREVIOUS, Backbone, Block, Edge
from search_spaces.auto_deeplab.drawing import path_graph
from search_spaces.auto_deeplab.network import segmenter
from search_spaces.auto_deeplab.operators import OPERATORS
from search_spaces.auto_deeplab.published import PUBLISHED, STEM_FILTERS
from search_spaces.auto_deeplab.supernet import Supernet

STRIDE_16 = 2
"""The level of stride 16."""


class AutoDeepLab(Space[Backbone]):
    """Cells of `blocks` blocks along a path of `layers` layers: `auto_deeplab:layers=8,blocks=3,filters=8`.

    A layer at stride s has blocks · filters · s / 4 filters. The stem has `stem_filters` at stride 2 and twice as many
    at stride 4; where `filters` are few, the paper's 64 take more time than all the cells. `decoder` puts dense ASPP
    and DeepLabV3+'s dense decoder on top; without it the head is that of the paper's search (§3.2). Convolutions of
    either head have `head_filters`.
    """

    layers: Annotated[int, Field(ge=1, le=24)] = 12
    blocks: Annotated[int, Field(ge=1, le=8)] = 5
    filters: Annotated[int, Field(ge=1)] = 8
    stem_filters: Annotated[int, Field(ge=1)] = STEM_FILTERS
    decoder: bool = True
    head_filters: Annotated[int, Field(ge=1)] = 256

    def size(self) -> int:
        """Cells, ∏_i (i + 1)² · 8² (§3.1), times paths."""
        cells = math.prod(((i + 2) * len(OPERATORS)) ** 2 for i in range(self.blocks))
        return cells * paths.count(self.layers)

    def references(self) -> dict[str, Backbone]:
        """A plain network (separable convolutions, stride 16 as soon as possible) and the published one.

        The published cell and path are cut to the space's size; where that is larger, the cell's blocks are repeated,
        and the path stays at its last level.
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

    def sample(self, rng: random.Random) -> Backbone:
        """A cell drawn uniformly, and a path drawn uniformly among paths."""

        def edge(index: int) -> Edge:
            return Edge(state=rng.randrange(index + 2), op=rng.choice(OPERATORS))

        blocks = tuple(Block(first=edge(index), second=edge(index)) for index in range(self.blocks))
        return Backbone(blocks=blocks, levels=paths.sample(self.layers, rng))

    def neighbours(self, choice: Backbone) -> Iterator[Backbone]:
        """Every point with one edge's state or operator, or one layer's stride, changed."""
        for index, block in enumerate(choice.blocks):
            for name in ("first", "second"):
                edge: Edge = getattr(block, name)
                others = [Edge(state=state, op=edge.op) for state in range(index + 2) if state != edge.state]
                others += [Edge(state=edge.state, op=op) for op in OPERATORS if op != edge.op]
                for other in others:
                    changed = block.model_copy(update={name: other})
                    blocks = (*choice.blocks[:index], changed, *choice.blocks[index + 1 :])
                    yield Backbone(blocks=blocks, levels=choice.levels)
        for levels in paths.neighbours(choice.levels):
            yield Backbone(blocks=choice.blocks, levels=levels)

    def suggest(self, trial: Suggest) -> Backbone:
        """A state and an operator per edge; a level per layer, named after the level before, which sets its range."""

        def edge(index: int, name: str) -> Edge:
            state = trial.suggest_int(f"state_{index}_{name}", 0, index + 1)
            op = trial.suggest_categorical(f"op_{index}_{name}", list(OPERATORS))
            return Edge.model_validate({"state": state, "op": op})

        blocks = tuple(Block(first=edge(index, "first"), second=edge(index, "second")) for index in range(self.blocks))
        levels = [0]
        for layer in range(1, self.layers + 1):
            moves = paths.next_levels(levels[-1])
            levels.append(trial.suggest_int(_level_name(layer, levels[-1]), moves[0], moves[-1]))
        return Backbone(blocks=blocks, levels=tuple(levels[1:]))

    def params(self, choice: Backbone) -> Mapping[str, int | str]:
        """The suggestions that describe `choice`."""
        params: dict[str, int | str] = {}
        for index, block in enumerate(choice.blocks):
            for name, edge in (("first", block.first), ("second", block.second)):
                params |= {f"state_{index}_{name}": edge.state, f"op_{index}_{name}": edge.op}
        for layer, (before, level) in enumerate(zip((0, *choice.levels), choice.levels, strict=False), start=1):
            params[_level_name(layer, before)] = level
        return params

    def canonical(self, choice: Backbone) -> Backbone:
        """The path as it is, and the cell without the order of blocks and edges and the states of zero edges."""
        return Backbone(blocks=canonical_blocks(choice.blocks), levels=choice.levels)

    def parse(self, data: Any) -> Backbone:
        """A point from a file's `choice`."""
        try:
            choice = Backbone.model_validate(data)
        except ValidationError as error:
            raise ValueError(one_line(error, "choice")) from None
        for what, found, wanted in (
            ("blocks", len(choice.blocks), self.blocks),
            ("layers", len(choice.levels), self.layers),
        ):
            if found != wanted:
                raise ValueError(f"the choice has {found} {what}, but the space has {wanted}: set {what}={found}")
        return choice

    @property
    def drawn_place(self) -> str:
        """The last copy of the cell: a cell that does not read H^{l-1} passes over some of the others."""
        return f"backbone.layer{self.layers}"

    def graphs(self, choice: Backbone) -> tuple[WeightedGraph, ...]:
        """The path on the trellis of strides."""
        return (path_graph(choice),)

    @property
    def shared_stage(self) -> None:
        """No part is the same for every point."""

    def architecture(self, choice: Backbone, classes: int) -> Architecture:
        """Stem, cells, head."""
        return segmenter(
            "auto_deeplab", choice, classes,
            filters=self.filters, stem_filters=self.stem_filters, head_filters=self.head_filters,
            with_decoder=self.decoder,
        )  # fmt: skip

    def relaxation(self, classes: int, options: RelaxationOptions) -> Supernet:
        """All of the space's networks in one, to be searched by gradient (§3.3)."""
        return Supernet(self, classes, options)


def _level_name(layer: int, before: int) -> str:
    return f"level_{layer}_after_{before}"
