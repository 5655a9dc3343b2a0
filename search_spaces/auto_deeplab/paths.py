"""The network level: how many paths of strides there are, drawing one uniformly, and which lie one change apart.

A path starts at the stem's stride 4; each layer's stride is the one before, its double or its half, within 4 to 32.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise

from search_spaces.auto_deeplab.choice import LEVELS


def next_levels(level: int) -> range:
    """The levels that a layer after one at `level` can have."""
    return range(max(0, level - 1), min(LEVELS, level + 2))


@cache
def count(layers: int, level: int = 0) -> int:
    """Number of paths of `layers` further layers after one at `level`, by dynamic programming.

    12 layers after the stem have 75,025 paths. The 2.9e4 of the paper (arXiv 1901.02985, §3.2) match 11 transitions
    (28,657), which leave out that layer 1 is at stride 4 or 8.
    """
    return sum(count(layers - 1, following) for following in next_levels(level)) if layers else 1


def sample(layers: int, rng: random.Random) -> tuple[int, ...]:
    """A path drawn uniformly among all paths: each move weighs as much as the paths that it leaves open.

    Uniform moves would favour paths along the borders, where there are fewer moves.
    """
    path: tuple[int, ...] = ()
    for remaining in reversed(range(layers)):
        moves = next_levels(path[-1] if path else 0)
        path += tuple(rng.choices(moves, [count(remaining, move) for move in moves]))
    return path


def neighbours(path: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every path with one layer's level changed."""
    for layer, level in enumerate(path):
        for other in next_levels(path[layer - 1] if layer else 0):
            changed = (*path[:layer], other, *path[layer + 1 :])
            if other != level and is_path(changed):
                yield changed


def is_path(levels: Sequence[int]) -> bool:
    """Whether each level can follow the one before, the first one the stem's."""
    return all(level in next_levels(before) for before, level in pairwise((0, *levels)))
