import random
from collections import Counter
from itertools import product

import pytest

from search_spaces.auto_deeplab import AutoDeepLab
from search_spaces.auto_deeplab.choice import Backbone, Block
from search_spaces.auto_deeplab.operators import OPERATORS
from search_spaces.auto_deeplab.published import PUBLISHED
from tests.search_spaces.auto_deeplab.made_up import block

TINY = AutoDeepLab(layers=2, blocks=1, filters=1, head_filters=1)


def everything() -> set[Backbone]:
    """All points of `TINY`."""
    edges = list(product(OPERATORS, (0, 1)))
    levels = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    return {Backbone(blocks=(block(a, b),), levels=path) for a, b, path in product(edges, edges, levels)}


def changes(a: Backbone, b: Backbone) -> int:
    """The number of decisions in which two points differ."""
    edges = [
        (x, y)
        for left, right in zip(a.blocks, b.blocks, strict=True)
        for x, y in zip(left.edges, right.edges, strict=True)
    ]
    return sum((x.state != y.state) + (x.op != y.op) for x, y in edges) + sum(
        x != y for x, y in zip(a.levels, b.levels, strict=True)
    )


def test_size_by_enumeration_and_the_papers_number_of_cells() -> None:
    assert TINY.size() == len(everything()) == 1280
    assert AutoDeepLab(blocks=2, layers=1).size() == (16 * 24) ** 2 * 2
    assert AutoDeepLab(layers=12).size() == 556_627_761_561_600 * 75_025 == (8**10 * 720**2) * 75_025


def test_neighbours_are_all_points_with_one_decision_changed() -> None:
    points = everything()
    for point in random.Random(0).sample(sorted(points, key=str), 5):
        found = list(TINY.neighbours(point))
        assert set(found) == {other for other in points if changes(point, other) == 1}
        assert len(found) == len(set(found))


def test_samples_are_uniform() -> None:
    rng, draws = random.Random(0), 6400
    edges: Counter[tuple[str, str, int]] = Counter()
    levels: Counter[tuple[int, ...]] = Counter()
    for _ in range(draws):
        point = TINY.sample(rng)
        levels[point.levels] += 1
        for name in ("first", "second"):
            edge = getattr(point.blocks[0], name)
            edges[name, edge.op, edge.state] += 1
    for counts, kinds, expected in ((edges, 32, draws / 16), (levels, 5, draws / 5)):
        assert len(counts) == kinds
        chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
        assert chi_square < kinds + 4 * (2 * kinds) ** 0.5


def test_references() -> None:
    references = AutoDeepLab().references()
    assert list(references) == ["plain", "auto_deeplab"]
    assert references["auto_deeplab"] == PUBLISHED
    assert references["plain"].levels == (1, 2, *(2,) * 10)
    assert set(references["plain"].blocks) == {block(("sep3", 0), ("sep3", 1))}


@pytest.mark.parametrize(
    ("layers", "blocks", "levels", "which"),
    [(4, 2, (0, 0, 0, 1), (0, 1)), (14, 7, (*PUBLISHED.levels, 1, 1), (0, 1, 2, 3, 4, 0, 1))],
)
def test_the_published_point_is_cut_or_extended(
    layers: int, blocks: int, levels: tuple[int, ...], which: tuple[int, ...]
) -> None:
    point = AutoDeepLab(layers=layers, blocks=blocks).references()["auto_deeplab"]
    assert point == Backbone(blocks=tuple(PUBLISHED.blocks[index] for index in which), levels=levels)


def test_levels_are_parameters_for_each_level_before() -> None:
    space, rng = AutoDeepLab(layers=4, blocks=2), random.Random(0)
    parameters = {decision.parameter for _ in range(200) for decision, _ in space.made(space.sample(rng))}
    assert {name for name in parameters if name.startswith("levels")} == {
        f"levels.{layer} after {before}" for layer in range(4) for before in range(min(layer + 1, 4))
    }
    assert "blocks.1.second.op" in parameters


def test_the_canonical_form_keeps_the_path_and_the_network() -> None:
    space = AutoDeepLab(layers=2, blocks=2, filters=1, head_filters=1)
    cell = (block(("sep3", 1), ("zero", 1)), block(("zero", 0), ("zero", 2)))
    point = Backbone(blocks=cell, levels=(1, 0))
    canonical = space.canonical(point)
    assert canonical.levels == point.levels
    assert canonical.blocks == (block(("zero", 0), ("zero", 0)), block(("zero", 0), ("sep3", 1)))
    costs = [space.architecture(each, 3).describe((64, 64)) for each in (point, canonical)]
    assert costs[0].params == costs[1].params
    assert costs[0].madds == costs[1].madds


@pytest.mark.parametrize(
    ("blocks", "levels", "message"),
    [
        (1, (0, 0, 0), r"^choice: levels has 3 items, but the space has 2$"),
        (2, (0, 0), r"^choice: blocks has 2 items, but the space has 1$"),
        (1, (), r"^choice: levels has 0 items, but the space has 2$"),
        (1, (0, 2), r"^choice: levels\[1\] is 2, but must be one of 0, 1$"),
        (1, (2, 1), r"^choice: levels\[0\] is 2, but must be one of 0, 1$"),
        (1, (1, 4), r"^choice: levels\[1\] is 4, but must be one of 0, 1, 2$"),
    ],
)
def test_a_choice_of_another_space_is_refused(blocks: int, levels: tuple[int, ...], message: str) -> None:
    cell: list[Block] = [block(("sep3", 0), ("skip", 1))] * blocks
    data = {"blocks": [each.model_dump() for each in cell], "levels": levels}
    with pytest.raises(ValueError, match=message):
        TINY.parse(data)


def test_a_block_reads_only_states_before_it() -> None:
    data = {"blocks": [block(("sep3", 0), ("skip", 2)).model_dump()], "levels": [0, 0]}
    with pytest.raises(ValueError, match=r"^choice: blocks\[0\]\.second\.state is 2, but must be one of 0, 1$"):
        TINY.parse(data)
