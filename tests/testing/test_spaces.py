"""The suite for spaces refuses what is wrong with one."""

import random
from collections.abc import Iterator

import pytest

from nasseg.testing import SpaceConformance
from nasseg.testing.branches import Branches, BranchSpace

SUITE = SpaceConformance()
RIGHT = BranchSpace(branches=2)


class WrongSize(BranchSpace):
    def size(self) -> int:
        return int(self.count * self.branches)


class NotUniform(BranchSpace):
    def sample(self, rng: random.Random) -> Branches:
        return Branches(rates=tuple(min(rng.randint(1, self.count), rng.randint(1, self.count)) for _ in range(2)))


class GlobalGenerator(BranchSpace):
    def sample(self, rng: random.Random) -> Branches:
        return Branches(rates=(random.randint(1, self.count), rng.randint(1, self.count)))


class OrderOfSets(BranchSpace):
    def neighbours(self, choice: Branches) -> Iterator[Branches]:
        by_name = {near.model_dump_json(): near for near in super().neighbours(choice)}
        yield from (by_name[name] for name in set(by_name))


class FewNeighbours(BranchSpace):
    def neighbours(self, choice: Branches) -> Iterator[Branches]:
        yield from (near for near in super().neighbours(choice) if near.rates[0] == choice.rates[0])


class OneWay(BranchSpace):
    def neighbours(self, choice: Branches) -> Iterator[Branches]:
        yield from (near for near in super().neighbours(choice) if near.rates > choice.rates)


class Shifting(BranchSpace):
    def canonical(self, choice: Branches) -> Branches:
        return Branches(rates=choice.rates[::-1])


class WrongStage(BranchSpace):
    @property
    def shared_stage(self) -> str:
        return "cell"


CHECKS = {
    WrongSize: [
        SUITE.test_points_are_drawn_uniformly_from_as_many_as_it_says,
        SUITE.test_neighbours_lead_to_as_many_points_as_it_says,
    ],
    NotUniform: [SUITE.test_points_are_drawn_uniformly_from_as_many_as_it_says],
    GlobalGenerator: [SUITE.test_a_seed_gives_the_same_samples_and_they_differ],
    OrderOfSets: [SUITE.test_another_process_draws_the_same],
    FewNeighbours: [SUITE.test_neighbours_lead_to_as_many_points_as_it_says],
    OneWay: [SUITE.test_neighbours_are_distinct_members_and_mutual],
    Shifting: [SUITE.test_the_canonical_form_is_a_fixed_member],
    WrongStage: [SUITE.test_networks_share_the_prefix_and_nothing_but_it],
}


@pytest.mark.parametrize("wrong", CHECKS)
def test_what_is_wrong_is_found(wrong: type[BranchSpace]) -> None:
    for check in CHECKS[wrong]:
        check(RIGHT)
        with pytest.raises(AssertionError):
            check(wrong(branches=2))
