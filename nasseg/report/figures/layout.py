"""Layered placement of a directed acyclic graph, so that edges point down and cross little.

Source: Sugiyama et al., Methods for Visual Understanding of Hierarchical System Structures, 1981: layers by longest
path, a placeholder for every layer that an edge passes, order by barycentre, then positions with straight edges.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

SWEEPS = 24
SCALE = 1000
"""Parts per box, as the solver wants integers."""


@dataclass(frozen=True)
class Layout:
    """Positions in units of boxes: x grows to the right and may be negative, y is the layer and grows down.

    `routes` holds the points (x, y) that each edge passes, including its two ends.
    """

    positions: Mapping[Hashable, tuple[float, int]]
    routes: Mapping[tuple[Hashable, Hashable], tuple[tuple[float, int], ...]]


def layered(graph: nx.DiGraph, gap: float = 1.15, passage: float = 0.4) -> Layout:
    """Place the nodes of an acyclic graph.

    Nodes of one layer are at least `gap` apart; an edge that passes through a layer takes `passage` of it.
    """
    layer_of = {node: index for index, layer in enumerate(nx.topological_generations(graph)) for node in layer}
    if not layer_of:
        return Layout({}, {})
    # A source belongs right above what it feeds, not at the top.
    for node in graph:
        if graph.in_degree(node) == 0 and graph.out_degree(node):
            layer_of[node] = min(layer_of[target] for target in graph.successors(node)) - 1
    full, chains = nx.DiGraph(), {}
    layers: list[list[Hashable]] = [[] for _ in range(max(layer_of.values()) + 1)]
    for node in graph:
        full.add_node(node, width=1.0)
        layers[layer_of[node]].append(node)
    for source, target in graph.edges:
        between = [("passage", source, target, level) for level in range(layer_of[source] + 1, layer_of[target])]
        for placeholder in between:
            full.add_node(placeholder, width=passage)
            layers[placeholder[3]].append(placeholder)
        chain = [source, *between, target]
        nx.add_path(full, chain)
        chains[source, target] = chain
    _order(full, layers)
    x = _place(full, layers, gap)
    y = {node: level for level, nodes in enumerate(layers) for node in nodes}
    return Layout(
        positions={node: (x[node], y[node]) for node in graph},
        routes={edge: tuple((x[node], y[node]) for node in chain) for edge, chain in chains.items()},
    )


def _order(graph: nx.DiGraph, layers: list[list[Hashable]]) -> None:
    """Sort each layer by the mean position of its neighbours above and below in turn; keep the best order."""
    best, fewest = [list(layer) for layer in layers], _crossings(graph, layers)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for level in range(1, len(layers)) if down else range(len(layers) - 2, -1, -1):
            fixed = {node: index for index, node in enumerate(layers[level - 1 if down else level + 1])}
            neighbours = graph.predecessors if down else graph.successors
            own = {node: index for index, node in enumerate(layers[level])}
            means = {n: _mean([fixed[m] for m in neighbours(n)], own[n]) for n in layers[level]}
            layers[level].sort(key=means.__getitem__)
        crossings = _crossings(graph, layers)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    layers[:] = best


def _crossings(graph: nx.DiGraph, layers: Sequence[Sequence[Hashable]]) -> int:
    total = 0
    for upper, lower in pairwise(layers):
        place = {node: index for index, node in enumerate(lower)}
        ends = [sorted(place[target] for target in graph.successors(node)) for node in upper]
        flat = [(row, end) for row, targets in enumerate(ends) for end in targets]
        total += sum(a < c and b > d for i, (a, b) in enumerate(flat) for c, d in flat[i + 1 :])
    return total


def _place(graph: nx.DiGraph, layers: Sequence[Sequence[Hashable]], gap: float) -> dict[Hashable, float]:
    """Minimise the weighted sum of the edges' horizontal lengths, keeping order and distances.

    The dual of this linear program is a minimum-cost flow, whose potentials are the positions. Source: Gansner et al.,
    A Technique for Drawing Directed Graphs, 1993, section 4.2.
    """
    flow = nx.DiGraph()
    flow.add_nodes_from(graph, demand=0)
    for layer in layers:
        for left, right in pairwise(layer):
            distance = gap * (graph.nodes[left]["width"] + graph.nodes[right]["width"]) / 2
            flow.add_edge(left, right, weight=-round(distance * SCALE))
    for edge in graph.edges:
        cost = _weight(graph, *edge)
        flow.add_node(edge, demand=-2 * cost)
        for end in edge:
            flow.add_edge(edge, end, weight=0)
            flow.nodes[end]["demand"] += cost
    _, flows = nx.network_simplex(flow)
    residual = flow.copy()
    residual.add_edges_from(
        (b, a, {"weight": -flow.edges[a, b]["weight"]}) for a in flows for b, amount in flows[a].items() if amount
    )
    residual.add_edges_from((("origin",), node, {"weight": 0}) for node in graph)
    distances = nx.single_source_bellman_ford_path_length(residual, ("origin",))
    return {node: -distances[node] / SCALE for node in graph}


def _weight(graph: nx.DiGraph, source: Hashable, target: Hashable) -> int:
    """Weigh how straight an edge should be: most inside a long edge, then in a chain."""
    passages = sum(graph.nodes[node]["width"] < 1 for node in (source, target))
    return (2 if graph.out_degree(source) == graph.in_degree(target) == 1 else 1, 2, 8)[passages]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
