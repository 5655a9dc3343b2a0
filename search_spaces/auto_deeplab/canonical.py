"""The canonical cell of all cells with the same meaning."""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces.auto_deeplab.choice import PREVIOUS, Block, Edge
from search_spaces.auto_deeplab.operators import OPERATORS

Order = tuple[int, ...]
"""Blocks by their index, in a new order."""
Code = tuple[tuple[int, int], ...]
"""A sort key: sorted (number, operator) pairs."""


def canonical_blocks(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Find the least cell among those that differ only in the order of edges and blocks and in what zero edges read.

    A sum has no order, and the 1×1 convolutions that read the concatenated blocks absorb its order. Blocks are placed
    one by one: next is the least of those whose inputs are placed. If several are equal, each is tried, as they may be
    read differently; of those read by the same edges, one is enough.
    """
    plain = [Block(first=_plain(block.first), second=_plain(block.second)) for block in blocks]
    readers = [_readers(plain, index) for index in range(len(plain))]
    orders: list[Order] = [()]
    for _ in plain:
        longer: dict[tuple[Code, Order, Code], Order] = {}
        for order in orders:
            for index, block in enumerate(plain):
                if index not in order and all(edge.state - 2 in (-2, -1, *order) for edge in block.edges):
                    longer.setdefault((_code(block, order), order, readers[index]), (*order, index))
        least = min(code for code, _, _ in longer)
        orders = [order for (code, _, _), order in longer.items() if code == least]
    return tuple(_block(_code(plain[index], orders[0])) for index in orders[0])


def _plain(edge: Edge) -> Edge:
    """Let a zero edge read H^{l-1}, as it makes no difference."""
    return Edge(state=PREVIOUS, op="zero") if edge.op == "zero" else edge


def _readers(blocks: Sequence[Block], index: int) -> Code:
    """List the edges that read block `index`, as block and operator."""
    return tuple(
        sorted(
            (reader, OPERATORS.index(edge.op))
            for reader, block in enumerate(blocks)
            for edge in block.edges
            if edge.state == 2 + index
        )
    )


def _code(block: Block, order: Order) -> Code:
    """Renumber the states of the block's edges as in `order`."""
    place = {0: 0, 1: 1, **{2 + index: 2 + position for position, index in enumerate(order)}}
    return tuple(sorted((place[edge.state], OPERATORS.index(edge.op)) for edge in block.edges))


def _block(code: Code) -> Block:
    first, second = (Edge(state=state, op=OPERATORS[op]) for state, op in code)
    return Block(first=first, second=second)
