"""Cells and paths for tests."""

from collections.abc import Sequence
from itertools import pairwise, product

from hypothesis import strategies as st

from search_spaces.auto_deeplab.choice import Block, Edge
from search_spaces.auto_deeplab.operators import OPERATORS, OperatorName


def block(first: tuple[OperatorName, int], second: tuple[OperatorName, int]) -> Block:
    """A block from (operator, state) pairs, as the paper writes them."""
    return Block(first=Edge(op=first[0], state=first[1]), second=Edge(op=second[0], state=second[1]))


@st.composite
def cells(
    draw: st.DrawFn, most_blocks: int, operators: Sequence[OperatorName] = OPERATORS, fewest_blocks: int = 1
) -> tuple[Block, ...]:
    def edge(index: int) -> tuple[OperatorName, int]:
        return draw(st.sampled_from(operators)), draw(st.integers(0, index + 1))

    return tuple(block(edge(index), edge(index)) for index in range(draw(st.integers(fewest_blocks, most_blocks))))


def all_paths(layers: int) -> list[tuple[int, ...]]:
    """Every path, from all sequences of levels: a step at most between two of them, and from the stem's level 0."""
    return [
        levels
        for levels in product(range(4), repeat=layers)
        if all(abs(level - before) <= 1 for before, level in pairwise((0, *levels)))
    ]
