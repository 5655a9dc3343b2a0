"""The suite for spaces refuses what is wrong with one."""

import random
from collections.abc import Iterator
from typing import ClassVar

import pytest

from nasseg.graph import Architecture, Builder
from nasseg.ops import Add, Conv, Resize, logits1x1
from nasseg.space import Decide, Space
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


class Dialled(Branches):
    width: int


class DialSpace(Space[Dialled]):
    """Branches of up to 64 channels, whose `dial` is their width."""

    dial: ClassVar[str] = "width"
    rates: ClassVar[range] = range(1, 5)

    def decisions(self, decide: Decide) -> None:
        for i in range(2):
            decide.ordered(f"rates.{i}", self.rates)
        decide.ordered("width", range(4, 65, 4))

    def references(self) -> dict[str, Dialled]:
        return {"plain": Dialled(rates=(1, 1), width=16)}

    def canonical(self, choice: Dialled) -> Dialled:
        return choice.model_copy(update={"rates": tuple(sorted(choice.rates))})

    def architecture(self, choice: Dialled, classes: int) -> Architecture:
        g = Builder("branches")
        image = g.input()
        width = choice.width
        branches = [
            g.add(f"cell.branch{i}", Conv(out_channels=width, stride=4, rate=(rate, rate)), image)
            for i, rate in enumerate(choice.rates)
        ]
        logits = g.add("head.logits", logits1x1(classes), g.add("cell.sum", Add(), *branches))
        return g.build(g.add("head.upsample", Resize(), logits, image))


class TestDialSpace(SpaceConformance):
    space = DialSpace()


class NoSuchDial(DialSpace):
    dial: ClassVar[str] = "depth"


class UnorderedDial(DialSpace):
    def decisions(self, decide: Decide) -> None:
        for i in range(2):
            decide.ordered(f"rates.{i}", self.rates)
        decide.category("width", range(4, 65, 4))


class FallingDial(DialSpace):
    def architecture(self, choice: Dialled, classes: int) -> Architecture:
        return super().architecture(choice.model_copy(update={"width": 68 - choice.width}), classes)


class IdleDial(DialSpace):
    def architecture(self, choice: Dialled, classes: int) -> Architecture:
        return super().architecture(choice.model_copy(update={"width": 8}), classes)


class OtherOptions(DialSpace):
    """The first two samples have different rates, and so dials of different lengths."""

    def decisions(self, decide: Decide) -> None:
        first = decide.ordered("rates.0", self.rates)
        decide.ordered("rates.1", self.rates)
        decide.ordered("width", range(4, 33 if first % 2 else 65, 4))


class DependsOnTheDial(DialSpace):
    def decisions(self, decide: Decide) -> None:
        width = decide.ordered("width", range(4, 65, 4))
        for i in range(2):
            decide.ordered(f"rates.{i}", self.rates if width < 32 else self.rates[:1])


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

WRONG_DIALS = [NoSuchDial, UnorderedDial, FallingDial, IdleDial, OtherOptions, DependsOnTheDial]


@pytest.mark.parametrize("wrong", CHECKS)
def test_what_is_wrong_is_found(wrong: type[BranchSpace]) -> None:
    for check in CHECKS[wrong]:
        check(RIGHT)
        with pytest.raises(AssertionError):
            check(wrong(branches=2))


@pytest.mark.parametrize("wrong", WRONG_DIALS)
def test_a_dial_that_does_not_scale_all_points_is_found(wrong: type[DialSpace]) -> None:
    with pytest.raises((AssertionError, ValueError)):
        SUITE.test_the_dial_scales_every_point_and_changes_nothing_else(wrong())


def test_a_point_is_dialled_up_and_down_and_its_neighbours_are_one_option_away() -> None:
    space, choice = DialSpace(), Dialled(rates=(2, 3), width=8)
    dial, position = space.dial_of(choice)
    assert (dial.name, dial.options[position], len(dial.options)) == ("width", 8, 16)
    assert [space.dialled(choice, step).width for step in range(16)] == list(range(4, 65, 4))
    assert all(space.dialled(choice, step).rates == (2, 3) for step in range(16))
    assert [near.width for near in space.neighbours(choice) if near.rates == (2, 3)] == [4, 12]
    assert len(list(space.neighbours(choice))) == 2 + 3 + 3
    with pytest.raises(ValueError, match="dial is None, but must be a decision of every point"):
        BranchSpace().dialled(Branches(rates=(1, 1, 1)), 0)
