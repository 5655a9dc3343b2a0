"""Exact identity of graphs: one hash for all graphs that differ only in the names of their nodes."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import networkx as nx

from nasseg.foreign import MAX_REFINED

Edge = tuple[str, str, str]
"""Source, label, target. Labels tell a node's inputs apart if their order counts."""
MAX_TRIED = 100
"""Nodes, one after the other, of which several looked alike."""

_encode = json.JSONEncoder(sort_keys=True).encode


def digest(value: object) -> str:
    """Hash a JSON value to 20 hex digits, the same in every process."""
    return hashlib.sha256(_encode(value).encode()).hexdigest()[:20]


def graph_key(colours: Mapping[str, str], edges: Sequence[Edge]) -> str:
    """Hash a graph with coloured nodes: equal exactly if some renaming of the nodes makes the graphs equal.

    Colours are refined by their neighbours' until nothing changes. Nodes that still look alike fall into parts that
    only settled nodes connect. In a part with several alike, each of them is tried as the first, and the smallest
    result counts. (Individualisation and refinement: McKay and Piperno, arXiv 1301.1493, §2.)

    Raises `ValueError` for a graph of so many alike nodes that this would take more than `MAX_REFINED` colours.
    """
    return _Hashing().key(colours, edges)


class _Hashing:
    def __init__(self) -> None:
        self._refined = 0
        self._tried = 0

    def key(self, colours: Mapping[str, str], edges: Sequence[Edge]) -> str:
        refined = self._refine(colours, edges)
        number = Counter(refined.values())
        alike = nx.Graph()
        alike.add_nodes_from(name for name, colour in refined.items() if number[colour] > 1)
        alike.add_edges_from((a, b) for a, _, b in edges if a in alike and b in alike)
        place = {name: index for index, names in enumerate(nx.connected_components(alike)) for name in names}
        parts: dict[int, tuple[dict[str, str], list[Edge]]] = defaultdict(lambda: ({}, []))
        for name, index in place.items():
            parts[index][0][name] = refined[name]
        for edge in edges:
            if edge[0] in place and edge[2] in place:
                parts[place[edge[0]]][1].append(edge)
        return digest([sorted(number.items()), sorted(self._part_key(*part) for part in parts.values())])

    def _part_key(self, colours: Mapping[str, str], edges: Sequence[Edge]) -> str:
        groups: dict[str, list[str]] = defaultdict(list)
        for name, colour in colours.items():
            groups[colour].append(name)
        size, colour = min(
            ((len(names), colour) for colour, names in groups.items() if len(names) > 1), default=(1, "")
        )
        if size == 1:
            return self.key(colours, edges)
        around = _around(edges)
        # Nodes with the same neighbours are interchangeable, so one of them is enough.
        firsts = {tuple(sorted(around[name])): name for name in groups[colour]}
        self._tried += 1
        if self._tried > MAX_TRIED:
            raise self._too_many()
        key = min(self.key({**colours, first: digest([colour, "first"])}, edges) for first in firsts.values())
        self._tried -= 1
        return key

    def _refine(self, colours: Mapping[str, str], edges: Sequence[Edge]) -> dict[str, str]:
        around = _around(edges)
        while True:
            self._refined += len(colours)
            if self._refined > MAX_REFINED:
                raise self._too_many()
            refined = {
                name: digest([colour, sorted((way, label, colours[other]) for way, label, other in around[name])])
                for name, colour in colours.items()
            }
            if len(set(refined.values())) == len(set(colours.values())):
                return refined
            colours = refined

    @staticmethod
    def _too_many() -> ValueError:
        return ValueError("the graph has too many equal nodes to tell them apart for its hash; make it smaller")


def _around(edges: Sequence[Edge]) -> dict[str, list[Edge]]:
    """List each node's edges as (direction, label, neighbour)."""
    around: dict[str, list[Edge]] = defaultdict(list)
    for source, label, target in edges:
        around[target].append(("from", label, source))
        around[source].append(("to", label, target))
    return around
