"""The network level: the paths of strides.

A path starts at the stem's stride 4; each layer's stride is the one before, its double or its half, within 4 to 32.
"""

from __future__ import annotations

from functools import cache

from search_spaces.auto_deeplab.choice import LEVELS


def next_levels(level: int) -> range:
    """List the levels that a layer after one at `level` can have."""
    return range(max(0, level - 1), min(LEVELS, level + 2))


@cache
def count(layers: int, level: int = 0) -> int:
    """Count the paths of `layers` further layers after one at `level`, by dynamic programming.

    12 layers after the stem have 75,025 paths. The paper's 2.9e4 (arXiv 1901.02985, §3.2) match 11 transitions
    (28,657), which leave out the choice of stride 4 or 8 for layer 1.
    """
    return sum(count(layers - 1, following) for following in next_levels(level)) if layers else 1
