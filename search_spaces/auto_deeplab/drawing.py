"""Drawings of a relaxation's weights: the trellis of strides with its β, the cell with its α."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from nasseg.space.weighted_graph import WeightedEdge, WeightedGraph, WeightedNode
from search_spaces.auto_deeplab.choice import LEVELS, Backbone
from search_spaces.auto_deeplab.operators import OPERATORS
from search_spaces.auto_deeplab.trellis import Transition, transitions


def path_graph(choice: Backbone) -> WeightedGraph:
    """Draw the path of a choice on the trellis of all paths."""
    path = set(_moves(choice))
    weights = {move: float(move in path) for move in transitions(len(choice.levels))}
    return trellis_graph(weights, choice).model_copy(update={"title": "Stride of each layer"})


def trellis_graph(weights: Mapping[Transition, float], choice: Backbone) -> WeightedGraph:
    """Draw layers as columns, strides as rows; an edge's weight is its β, and the decoded path is chosen."""
    places = sorted({(0, 0)} | {(move.layer, move.target) for move in weights})
    path = set(_moves(choice))
    return WeightedGraph(
        name="network",
        title="Probability of each move between strides",
        nodes=tuple(
            WeightedNode(name=_place(layer, level), column=layer, row=level, label=str(4 << level) if layer else "stem")
            for layer, level in places
        ),
        edges=tuple(
            WeightedEdge(
                source=_place(move.layer - 1, move.source),
                target=_place(move.layer, move.target),
                weight=weight,
                chosen=move in path,
            )
            for move, weight in weights.items()
        ),
    )


def cell_graph(weights: Mapping[tuple[int, int], Sequence[float]], choice: Backbone) -> WeightedGraph:
    """Draw states and blocks from left to right, operators as edges weighted by α; the decoded cell is chosen."""
    chosen = {(block, edge.state, edge.op) for block, b in enumerate(choice.blocks) for edge in b.edges}
    blocks = len(choice.blocks)
    rows = {0: 0.0, 1: float(LEVELS - 1), **{2 + block: (1.0 if block % 2 else 2.0) for block in range(blocks)}}
    labels = {0: "H(l-1)", 1: "H(l-2)", **{2 + block: f"block {block}" for block in range(blocks)}}
    return WeightedGraph(
        name="cell",
        title="Weight of each operator on each edge of the cell",
        nodes=tuple(
            WeightedNode(name=f"state{state}", column=max(0, state - 1), row=rows[state], label=labels[state])
            for state in range(blocks + 2)
        ),
        edges=tuple(
            WeightedEdge(
                source=f"state{state}",
                target=f"state{2 + block}",
                weight=weight,
                label=name,
                chosen=(block, state, name) in chosen,
            )
            for (block, state), edge in weights.items()
            for name, weight in zip(OPERATORS, edge, strict=True)
        ),
    )


def _moves(choice: Backbone) -> list[Transition]:
    return [
        Transition(layer, source, target) for layer, (source, target) in enumerate(pairwise((0, *choice.levels)), 1)
    ]


def _place(layer: int, level: int) -> str:
    return f"layer{layer}-stride{4 << level}"
