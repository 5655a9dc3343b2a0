"""The trellis of layers and levels: its paths, their probabilities, and the maps along them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from search_spaces.auto_deeplab.choice import LEVELS
from search_spaces.auto_deeplab.dimensions import Dimensions
from search_spaces.auto_deeplab.paths import next_levels


class Transition(NamedTuple):
    """A move into `layer` (from 1) at the level `target`, from the level `source` of the layer before."""

    layer: int
    source: int
    target: int


def transitions(layers: int) -> Iterator[Transition]:
    """Yield every move that some path makes, layer by layer; layer 1 is reached from the stem, which is at level 0."""
    for layer in range(1, layers + 1):
        for source in range(min(layer, LEVELS)):
            for target in next_levels(source):
                yield Transition(layer, source, target)


Place = tuple[int, int]
"""Layer and level; the stem's maps at stride 2 and 4 count as layers -1 and 0."""
STEM_STRIDE2, STEM = (-1, -1), (0, 0)


class Trellis:
    """All moves and cell edges of networks of some dimensions, and the maps between them."""

    def __init__(self, dimensions: Dimensions) -> None:
        self.dimensions = dimensions
        self.moves = tuple(transitions(dimensions.layers))
        self.edges = tuple((block, state) for block in range(dimensions.blocks) for state in range(block + 2))

    def channels(self, place: Place) -> int:
        """Count the channels of the map of a layer at a level."""
        layer, level = place
        if layer < 1:
            return self.dimensions.stem_filters * (1 if place == STEM_STRIDE2 else 2)
        return self.dimensions.blocks * (self.dimensions.filters << level)

    def before(self, move: Transition) -> list[Place]:
        """List the places where the map two layers before `move` may come from."""
        if move.layer == 1:
            return [STEM_STRIDE2]
        return [(m.layer - 1, m.source) for m in self.moves if m.layer == move.layer - 1 and m.target == move.source]


class Flow:
    """The probabilities that follow from β: of each place on the trellis, and of where a path came from."""

    def __init__(self, moves: Sequence[Transition], beta: Tensor) -> None:
        self.beta = dict(zip(moves, beta.unbind(), strict=True))
        self.at = self.reached_from(STEM)

    def reached_from(self, start: Place) -> dict[Place, Tensor]:
        """Compute the probability of each place for a path that is at `start`; unreachable places are left out."""
        at = {start: torch.ones_like(next(iter(self.beta.values())))}
        for move, probability in self.beta.items():
            source, place = (move.layer - 1, move.source), (move.layer, move.target)
            if source in at:
                arriving = at[source] * probability
                at[place] = at[place] + arriving if place in at else arriving
        return at

    def came_from(self, move: Transition, place: Place) -> Tensor:
        """Compute the probability that a path which makes `move` was at `place` two layers before; 0 if none does."""
        if place == STEM_STRIDE2:
            return torch.ones_like(self.at[STEM])
        last = Transition(move.layer - 1, place[1], move.source)
        here = self.at[move.layer - 1, move.source]
        return self.at[place] * self.beta[last] / here.clamp(min=torch.finfo(here.dtype).tiny)


def level_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Compute a map's (height, width) at each level, from that at level 0."""
    sizes = [size]
    while len(sizes) < LEVELS:
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes
