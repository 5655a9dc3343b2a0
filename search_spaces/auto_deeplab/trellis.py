"""Where paths go on the trellis of layers and levels, and how likely."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from search_spaces.auto_deeplab.choice import LEVELS


class Transition(NamedTuple):
    """A move into `layer` (from 1) at the level `target`, from the level `source` of the layer before."""

    layer: int
    source: int
    target: int


def transitions(layers: int) -> Iterator[Transition]:
    """Every move that some path makes, layer by layer; layer 1 is reached from the stem, which is at level 0."""
    for layer in range(1, layers + 1):
        for source in range(min(layer, LEVELS)):
            for target in range(max(0, source - 1), min(LEVELS, source + 2)):
                yield Transition(layer, source, target)


Place = tuple[int, int]
"""Layer and level; the stem's maps at stride 2 and 4 count as layers -1 and 0."""
STEM_STRIDE2, STEM = (-1, -1), (0, 0)


class Flow:
    """Probabilities that follow from β: of being somewhere on the trellis, and of where a path came from."""

    def __init__(self, moves: Sequence[Transition], beta: Tensor) -> None:
        self.beta = dict(zip(moves, beta.unbind(), strict=True))
        self.at = self.reached_from(STEM)

    def reached_from(self, start: Place) -> dict[Place, Tensor]:
        """The probability of each place for a path that is at `start`; places that none reaches are left out."""
        at = {start: torch.ones_like(next(iter(self.beta.values())))}
        for move, probability in self.beta.items():
            source, place = (move.layer - 1, move.source), (move.layer, move.target)
            if source in at:
                arriving = at[source] * probability
                at[place] = at[place] + arriving if place in at else arriving
        return at

    def came_from(self, move: Transition, place: Place) -> Tensor:
        """The probability that a path which makes `move` was at `place` two layers before; 0 where none makes it."""
        if place == STEM_STRIDE2:
            return torch.ones_like(self.at[STEM])
        last = Transition(move.layer - 1, place[1], move.source)
        here = self.at[move.layer - 1, move.source]
        return self.at[place] * self.beta[last] / here.clamp(min=torch.finfo(here.dtype).tiny)


def level_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """The map's (height, width) at each level, from that at level 0."""
    sizes = [size]
    while len(sizes) < LEVELS:
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes
