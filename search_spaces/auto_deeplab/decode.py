"""Decoding the weights of a relaxation to a point of the space: the strongest cell, the most likely path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search_spaces.auto_deeplab.choice import Block, Edge
from search_spaces.auto_deeplab.operators import OPERATORS
from search_spaces.auto_deeplab.trellis import Transition


def strongest_path(probabilities: Mapping[Transition, float]) -> tuple[int, ...]:
    """Find the levels of the path with the largest product of transitions (Viterbi; Auto-DeepLab §3.4)."""
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
    """Find for each block the two states with the strongest nonzero operators, and these operators (§3.4).

    `weights[block, state]` holds one weight per operator, in the order of `OPERATORS`.
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
