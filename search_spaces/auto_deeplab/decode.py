"""From the weights of a relaxation to one point of the space: the strongest cell, the most likely path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from search_spaces.auto_deeplab.choice import LEVELS, Block, Edge
from search_spaces.auto_deeplab.operators import OPERATORS


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


def strongest_path(probabilities: Mapping[Transition, float]) -> tuple[int, ...]:
    """The levels of the path whose transitions have the largest product (Viterbi; Auto-DeepLab §3.4)."""
    paths: dict[int, tuple[float, tuple[int, ...]]] = {0: (1.0, ())}
    for layer in range(1, max(move.layer for move in probabilities) + 1):
        longer: dict[int, tuple[float, tuple[int, ...]]] = {}
        for move, probability in probabilities.items():
            if move.layer == layer and move.source in paths:
                before, path = paths[move.source]
                strength = before * probability
                if move.target not in longer or strength > longer[move.target][0]:
                    longer[move.target] = strength, (*path, move.target)
        paths = longer
    return max(paths.values())[1]


def strongest_cell(blocks: int, weights: Mapping[tuple[int, int], Sequence[float]]) -> tuple[Block, ...]:
    """For each block the two states with the strongest operator other than zero, each with that operator (§3.4).

    `weights[block, state]` holds one weight an operator, in the order of `OPERATORS`.
    """

    def strongest(block: int, state: int) -> tuple[float, Edge]:
        weighed = zip(weights[block, state], OPERATORS, strict=True)
        weight, name = max((pair for pair in weighed if pair[1] != "zero"), key=lambda pair: pair[0])
        return weight, Edge(state=state, op=name)

    cell = []
    for block in range(blocks):
        edges = sorted((strongest(block, state) for state in range(block + 2)), key=lambda pair: pair[0], reverse=True)
        first, second = sorted((edge for _, edge in edges[:2]), key=lambda edge: edge.state)
        cell.append(Block(first=first, second=second))
    return tuple(cell)
