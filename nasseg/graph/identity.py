"""Exact identity of graphs: one hash for all graphs that differ only in the names of their nodes."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import networkx as nx

Edge = tuple[str, str, str]
"""Source, label, target. Labels tell a node's inputs apart if their order counts."""


def digest(value: object) -> str:
    """Hash a JSON value to 20 hex digits, the same in every process."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]


def graph_key(colours: Mapping[str, str], edges: Sequence[Edge]) -> str:
    """Hash a graph with coloured nodes: equal exactly if some renaming of the nodes makes the graphs equal.

    Colours are refined by their neighbours' until nothing changes. Nodes that still look alike fall into parts that
    only settled nodes connect. In a part with several alike, each of them is tried as the first, and the smallest
    result counts. (Individualisation and refinement: McKay and Piperno, arXiv 1301.1493, §2.)
    """
    refined = _refine(colours, edges)
    count = Counter(refined.values())
    alike = nx.Graph()
    alike.add_nodes_from(name for name, colour in refined.items() if count[colour] > 1)
    alike.add_edges_from((a, b) for a, _, b in edges if a in alike and b in alike)
    parts = []
    for names in nx.connected_components(alike):
        part = {name: refined[name] for name in names}
        parts.append(_part_key(part, [edge for edge in edges if edge[0] in part and edge[2] in part]))
    return digest([sorted(count.items()), sorted(parts)])


def _part_key(colours: Mapping[str, str], edges: Sequence[Edge]) -> str:
    groups: dict[str, list[str]] = defaultdict(list)
    for name, colour in colours.items():
        groups[colour].append(name)
    size, colour = min(((len(names), colour) for colour, names in groups.items() if len(names) > 1), default=(1, ""))
    if size == 1:
        return graph_key(colours, edges)
    around = _around(edges)
    # Nodes with the same neighbours are interchangeable, so one of them is enough.
    firsts = {tuple(sorted(around[name])): name for name in groups[colour]}
    return min(graph_key({**colours, first: digest([colour, "first"])}, edges) for first in firsts.values())


def _refine(colours: Mapping[str, str], edges: Sequence[Edge]) -> dict[str, str]:
    around = _around(edges)
    while True:
        refined = {
            name: digest([colour, sorted((way, label, colours[other]) for way, label, other in around[name])])
            for name, colour in colours.items()
        }
        if len(set(refined.values())) == len(set(colours.values())):
            return refined
        colours = refined


def _around(edges: Sequence[Edge]) -> dict[str, list[Edge]]:
    """List each node's edges as (direction, label, neighbour)."""
    around: dict[str, list[Edge]] = defaultdict(list)
    for source, label, target in edges:
        around[target].append(("from", label, source))
        around[source].append(("to", label, target))
    return around
