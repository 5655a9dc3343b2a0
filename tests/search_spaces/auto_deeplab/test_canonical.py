from collections.abc import Iterator
from itertools import combinations_with_replacement, permutations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from nasseg.graph import Node
from nasseg.ops import Add, Concat
from search_spaces.auto_deeplab import AutoDeepLab
from search_spaces.auto_deeplab.canonical import canonical_blocks
from search_spaces.auto_deeplab.choice import Backbone, Block, Edge
from search_spaces.auto_deeplab.operators import OPERATORS
from search_spaces.auto_deeplab.published import PUBLISHED
from tests.search_spaces.auto_deeplab.made_up import block, cells

Cell = tuple[Block, ...]
few = cells(4, operators=("sep3", "max_pool", "zero"))


def code(cell: Cell) -> list[list[tuple[int, int]]]:
    return [[(edge.state, OPERATORS.index(edge.op)) for edge in block.edges] for block in cell]


def orders(cell: Cell) -> Iterator[Cell]:
    """Every order of blocks in which each comes after those it reads, the edges of each block sorted."""
    for order in permutations(range(len(cell))):
        place = {0: 0, 1: 1} | {2 + old: 2 + new for new, old in enumerate(order)}
        reordered = []
        for new, old in enumerate(order):
            moved = [Edge(state=0 if edge.op == "zero" else place[edge.state], op=edge.op) for edge in cell[old].edges]
            if any(edge.state >= 2 + new for edge in moved):
                break
            first, second = sorted(moved, key=lambda edge: (edge.state, OPERATORS.index(edge.op)))
            reordered.append(Block(first=first, second=second))
        else:
            yield tuple(reordered)


@given(few)
@settings(max_examples=300)
def test_the_canonical_cell_is_the_least_of_all_orders(cell: Cell) -> None:
    assert canonical_blocks(cell) == min(orders(cell), key=code)


@given(few)
def test_all_orders_have_one_canonical_cell(cell: Cell) -> None:
    assert {canonical_blocks(order) for order in orders(cell)} == {canonical_blocks(cell)}


@given(cells(3, operators=("sep3", "zero"), fewest_blocks=3), st.data())
@settings(max_examples=50)
def test_cells_have_one_canonical_form_exactly_if_they_are_the_same_network(cell: Cell, data: st.DataObject) -> None:
    other = data.draw(cells(3, operators=("sep3", "zero"), fewest_blocks=3) | st.sampled_from(list(orders(cell))))
    assert (canonical_blocks(cell) == canonical_blocks(other)) == (key(cell) == key(other))


def key(cell: Cell) -> str:
    """The network's key once the concatenation of the blocks is a sum, whose order does not count."""
    space = AutoDeepLab(layers=1, blocks=len(cell), filters=1, head_filters=1, decoder=False)
    architecture = space.architecture(Backbone(blocks=cell, levels=(0,)), 2)
    nodes = [
        Node(name=node.name, op=Add(), inputs=node.inputs)
        if isinstance(node.op, Concat) and node.stage == "backbone"
        else node
        for node in architecture.nodes
    ]
    return architecture.replace(nodes=tuple(nodes)).key


def test_one_block_has_as_many_canonical_forms_as_pairs_of_edges() -> None:
    edges = [(op, state) for op in OPERATORS for state in (0, 1)]
    forms = {canonical_blocks((block(first, second),)) for first, second in product(edges, edges)}
    different_edges = 2 * 7 + 1  # a zero edge reads nothing
    assert len(forms) == len(list(combinations_with_replacement(range(different_edges), 2)))


def test_the_published_cell_in_order() -> None:
    turned = tuple(Block(first=block.second, second=block.first) for block in PUBLISHED.blocks)
    canonical = canonical_blocks(PUBLISHED.blocks)
    assert canonical_blocks(turned) == canonical
    assert canonical[:2] == (block(("sep3", 0), ("atrous5", 1)), block(("atrous3", 0), ("sep3", 1)))


def test_of_many_equal_blocks_not_every_order_is_tried() -> None:
    equal = block(("sep3", 0), ("sep3", 1))
    assert canonical_blocks((equal,) * 8) == (equal,) * 8
    readers = (block(("skip", 5), ("sep5", 6)), block(("sep5", 4), ("zero", 0)), block(("sep3", 2), ("skip", 3)))
    canonical = canonical_blocks((*(equal,) * 5, *readers))
    assert canonical[:5] == (equal,) * 5
    assert canonical_blocks((*(equal,) * 5, *reversed(readers))) == canonical
