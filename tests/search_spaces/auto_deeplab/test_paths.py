import random
from fractions import Fraction
from math import prod

import pytest

from nasseg.space.decisions import completions
from search_spaces.auto_deeplab import AutoDeepLab, paths
from tests.search_spaces.auto_deeplab.made_up import all_paths

CELL = {
    f"blocks.0.{edge}.{part}": value for edge in ("first", "second") for part, value in (("state", 0), ("op", "skip"))
}
"""A cell of one block, so that the path alone is left to decide."""


@pytest.mark.parametrize("layers", range(1, 8))
def test_paths_are_counted_as_by_enumeration(layers: int) -> None:
    assert paths.count(layers) == len(all_paths(layers))


def test_the_papers_number_of_paths() -> None:
    assert paths.count(12) == 75_025
    assert paths.count(11) == 28_657
    assert paths.count(2, level=3) == len([(3, 3), (3, 2), (2, 3), (2, 2), (2, 1)])


@pytest.mark.parametrize("layers", [1, 3, 6])
def test_each_path_is_drawn_with_the_same_probability(layers: int) -> None:
    probabilities: dict[tuple[int, ...], Fraction] = {}
    for made in completions(AutoDeepLab(layers=layers, blocks=1).decisions, CELL):
        levels = [(decision, position) for decision, position in made if decision.name.startswith("levels")]
        path = tuple(int(decision.options[position]) for decision, position in levels)
        probabilities[path] = prod(decision.share(position) for decision, position in levels)
    assert probabilities == dict.fromkeys(all_paths(layers), Fraction(1, len(all_paths(layers))))


def test_samples_reach_every_path() -> None:
    rng, space = random.Random(0), AutoDeepLab(layers=3, blocks=1)
    assert {space.sample(rng).levels for _ in range(300)} == set(all_paths(3))
