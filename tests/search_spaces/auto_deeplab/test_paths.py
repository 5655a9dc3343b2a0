import random
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import product

import pytest

from search_spaces.auto_deeplab import paths
from tests.search_spaces.auto_deeplab.made_up import all_paths

Path = tuple[int, ...]


@cache
@pytest.mark.parametrize("layers", range(1, 8))
def test_paths_are_counted_as_by_enumeration(layers: int) -> None:
    assert paths.count(layers) == len(all_paths(layers))
    assert set(all_paths(layers)) == {levels for levels in product(range(4), repeat=layers) if paths.is_path(levels)}


def test_the_papers_number_of_paths() -> None:
    assert paths.count(12) == 75_025
    assert paths.count(11) == 28_657
    assert paths.count(2, level=3) == len([(3, 3), (3, 2), (2, 3), (2, 2), (2, 1)])


class Scripted(random.Random):
    """Draws what it is told to, and keeps the exact probability of it."""

    def __init__(self, script: Path) -> None:
        super().__init__()
        self.script, self.probability = list(script), Fraction(1)

    def choices(self, population: Sequence[int], weights: Sequence[int]) -> list[int]:  # type: ignore[override]
        drawn = self.script.pop(0)
        place = population.index(drawn)  # the script is a path, so it is among the moves
        self.probability *= Fraction(weights[place], sum(weights))
        return [drawn]


@pytest.mark.parametrize("layers", [1, 3, 6])
def test_each_path_is_drawn_with_the_same_probability(layers: int) -> None:
    for path in all_paths(layers):
        rng = Scripted(path)
        assert paths.sample(layers, rng) == path
        assert rng.probability == Fraction(1, len(all_paths(layers)))


def test_samples_reach_every_path() -> None:
    rng = random.Random(0)
    assert {paths.sample(3, rng) for _ in range(300)} == set(all_paths(3))


def test_neighbours_are_the_paths_with_one_level_changed() -> None:
    for path in all_paths(4):
        found = list(paths.neighbours(path))
        assert len(found) == len(set(found))
        assert set(found) == {
            other for other in all_paths(4) if sum(a != b for a, b in zip(path, other, strict=True)) == 1
        }
