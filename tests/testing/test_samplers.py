"""The suite for samplers refuses what is wrong with one."""

import random
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from nasseg.planning.candidates import Trial
from nasseg.planning.samplers.base import Region
from nasseg.space import Choice
from nasseg.testing import SamplerConformance, SpaceConformance
from nasseg.testing.branches import Branches, BranchSpace

SUITE = SamplerConformance()


class TestBranchSpace(SpaceConformance):
    space = BranchSpace(branches=2)


class Uniform:
    """What is right: uniform samples."""

    def __init__(self, region: Region) -> None:
        self.space, self.calls = region.space, 0

    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        choice: Choice = self.space.sample(rng)
        return choice


class WithState(Uniform):
    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        self.calls += 1
        return Branches(rates=(self.calls % 7 + 1, rng.randint(1, 7), 1))


class IgnoresGenerator(Uniform):
    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        return Branches(rates=(1, 1, 1 + len(history) % 7))


class GlobalGenerator(Uniform):
    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        return Branches(rates=(random.randint(1, 7), 1, 1))


class OrderOfSets(Uniform):
    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        letters = {letter: 1 + place % 7 for place, letter in enumerate({"a", "b", "c", "d", "e", "f", "g", "h", "i"})}
        first, second, third = rng.sample("abcdefghi", 3)  # others each time, as one order may agree by chance
        return Branches(rates=(letters[first], letters[second], letters[third]))


class Elsewhere(Uniform):
    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        return Branches(rates=(0, 0, 0))


class ChangesHistory(Uniform):
    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        assert isinstance(history, list)
        history.sort(key=lambda trial: trial.values or ())
        return super().propose(history, rng)


class NeedsValues(Uniform):
    def propose(self, history: Sequence[Trial], rng: Random) -> Choice:
        return max(history, key=lambda trial: trial.values[0]).choice  # type: ignore[index]


Wrong = Callable[[Callable[[Region], Any]], None]
CHECKS: dict[type[Uniform], Wrong] = {
    WithState: SUITE.test_it_keeps_no_state,
    IgnoresGenerator: SUITE.test_the_generator_decides,
    GlobalGenerator: SUITE.test_no_other_generator_is_used,
    OrderOfSets: SUITE.test_another_process_proposes_the_same,
    Elsewhere: lambda sampler: SUITE.test_it_proposes_points_of_the_space_whatever_was_tried(sampler, "promoted"),
    ChangesHistory: lambda sampler: SUITE.test_what_was_tried_stays_as_it_is(sampler, "promoted"),
    NeedsValues: lambda sampler: SUITE.test_it_proposes_points_of_the_space_whatever_was_tried(sampler, "running"),
}


@pytest.mark.parametrize("sampler", CHECKS)
def test_what_is_wrong_is_found(sampler: type[Uniform]) -> None:
    CHECKS[sampler](Uniform)
    with pytest.raises((AssertionError, ValueError, TypeError)):
        CHECKS[sampler](sampler)


def test_what_is_not_installed_is_told_how() -> None:
    with pytest.raises(AssertionError, match=r'"nasseg.samplers"\] NAME = "tests.testing.test_samplers:Un'):
        SUITE.test_the_command_line_knows_it(Uniform)
