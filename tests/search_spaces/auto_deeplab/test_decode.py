"""Decoding against brute force."""

import math
import random
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.auto_deeplab.choice import Block, Edge
from search_spaces.auto_deeplab.decode import strongest_cell, strongest_path
from search_spaces.auto_deeplab.operators import OPERATORS
from search_spaces.auto_deeplab.trellis import Transition, transitions
from tests.search_spaces.auto_deeplab.made_up import all_paths


@pytest.mark.parametrize("layers", range(1, 7))
def test_transitions_are_the_moves_of_all_paths(layers: int) -> None:
    expected = {
        Transition(layer, *pair)
        for path in all_paths(layers)
        for layer, pair in enumerate(pairwise((0, *path)), start=1)
    }
    assert set(transitions(layers)) == expected
    assert len(list(transitions(layers))) == len(expected)


@settings(deadline=None, max_examples=60)
@given(layers=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_the_strongest_path_is_that_of_brute_force(layers: int, seed: int) -> None:
    rng = random.Random(seed)
    weights = {move: rng.random() for move in transitions(layers)}

    def strength(path: tuple[int, ...]) -> float:
        return math.prod(weights[Transition(layer, *pair)] for layer, pair in enumerate(pairwise((0, *path)), start=1))

    assert strongest_path(weights) == max(all_paths(layers), key=strength)


@settings(deadline=None, max_examples=60)
@given(blocks=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_the_strongest_cell_is_that_of_brute_force_and_never_zero(blocks: int, seed: int) -> None:
    rng = random.Random(seed)
    weights = {
        (block, state): [rng.random() for _ in OPERATORS[:-1]] + [5.0]  # zero is stronger than all
        for block in range(blocks)
        for state in range(block + 2)
    }
    assert OPERATORS[-1] == "zero"
    for block, found in enumerate(strongest_cell(blocks, weights)):

        def strength(pair: tuple[Edge, Edge], block: int = block) -> float:
            return sum(weights[block, edge.state][OPERATORS.index(edge.op)] for edge in pair)

        edges = [Edge(state=state, op=op) for state in range(block + 2) for op in OPERATORS[:-1]]
        best = max((pair for pair in combinations(edges, 2) if pair[0].state != pair[1].state), key=strength)
        assert found == Block(first=best[0], second=best[1])
