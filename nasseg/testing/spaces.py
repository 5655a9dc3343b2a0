"""The suite for search spaces."""

from __future__ import annotations

import json
import math
import random
from functools import partial
from itertools import islice
from typing import Any, ClassVar

import pytest
import torch

from nasseg.space.decisions import Decision
from nasseg.space.space import C, Choice, Space
from nasseg.testing.suite import Suite, elsewhere

CLASSES = 3
MOST_DRAWN = 20_000
MOST_COUNTED = 2_000
"""Largest number of points that is counted one by one."""
MOST_DIALLED = 8
"""Intervals between the options of a dial whose costs are compared."""


def samples(space: Space[C], count: int) -> list[C]:
    """Draw the same choices each time."""
    rng = random.Random(0)
    return [space.sample(rng) for _ in range(count)]


def distinct(space: Space[C], count: int) -> list[C]:
    """Draw at most `count` choices that mean different networks."""
    return list(islice(dict.fromkeys(space.canonical(choice) for choice in samples(space, 10 * count)), count))


def as_json(choice: Choice) -> object:
    """Convert a choice to JSON as in a file."""
    return json.loads(choice.model_dump_json())


def drawn(space: Space[Any]) -> list[object]:
    """Draw a few samples, the neighbours of the first, and the hash of its network."""
    first, *rest = samples(space, 5)
    near = islice(space.neighbours(first), 20)
    return [[as_json(choice) for choice in (first, *rest, *near)], space.architecture(first, CLASSES).key]


def _answer(taken: dict[str, int], decision: Decision) -> int:
    return taken[decision.name]


class SpaceConformance(Suite):
    """Checks of a space, with options that keep its networks small.

    class TestTwoRates(SpaceConformance):
        space = TwoRates()
    """

    subject = "space"
    space: ClassVar[Space[Any]]

    def test_a_seed_gives_the_same_samples_and_they_differ(self, space: Space[Any]) -> None:
        """Fix: draw from the generator that `sample` is given, and from no other."""
        before = random.getstate()
        found = samples(space, 20)
        assert found == samples(space, 20)
        assert random.getstate() == before, "it draws from the global generator"
        size = space.size()
        assert size is None or size > 1
        assert len(set(found)) >= (15 if size is None or size >= 60 else 2)

    def test_another_process_draws_the_same(self, space: Space[Any]) -> None:
        """Fix: no loop over a set."""
        assert elsewhere(drawn, space) == drawn(space)

    def test_points_are_drawn_uniformly_from_as_many_as_it_says(self, space: Space[Any]) -> None:
        """Fix: `size`, or weigh each option by the number of points that it leaves open.

        Of n uniform samples, n (n - 1) / 2 / size pairs are expected to be equal, and more if some points are likelier
        than others. In a space so large that too few are expected, this says nothing.
        """
        size = space.size()
        if size is None:
            pytest.skip("it cannot count its points")
        count = min(MOST_DRAWN, math.ceil((2_000 * size) ** 0.5))
        expected = count * (count - 1) / 2 / size
        if expected < 36:
            pytest.skip(f"of {size:,} points, samples do not meet often enough to tell")
        seen: dict[Choice, int] = {}
        for choice in samples(space, count):
            seen[choice] = seen.get(choice, 0) + 1
        equal = sum(times * (times - 1) // 2 for times in seen.values())
        assert abs(equal - expected) < 6 * expected**0.5, f"{equal} pairs of {count} samples are equal"

    def test_neighbours_lead_to_as_many_points_as_it_says(self, space: Space[Any]) -> None:
        """Fix: `size`, or `neighbours` that leaves out points which differ in one decision."""
        size = space.size()
        if size is None or size > MOST_COUNTED:
            pytest.skip(f"it has more than {MOST_COUNTED:,} points")
        found, new = set(samples(space, 1)), samples(space, 1)
        while new:
            new = list(dict.fromkeys(near for choice in new for near in space.neighbours(choice) if near not in found))
            found.update(new)
        assert len(found) == size

    def test_choices_survive_json_and_are_checked(self, space: Space[Any]) -> None:
        """Fix: tuples instead of lists; a `ValueError` that begins with `choice: ` for data that is not a point."""
        for choice in [*samples(space, 20), *space.references().values()]:
            assert space.parse(as_json(choice)) == choice
        with pytest.raises(ValueError, match=r"^choice: "):
            space.parse({"nonsense": 1})

    def test_decisions_describe_choices_both_ways(self, space: Space[Any]) -> None:
        """Fix: `decisions` that depend on nothing but the options taken, and name every field that differs."""
        for choice in [*samples(space, 20), *space.references().values()]:
            taken = {decision.name: position for decision, position in space.made(choice)}
            assert space.choose(partial(_answer, taken)) == choice

    def test_each_parameter_has_the_same_options_at_every_point(self, space: Space[Any]) -> None:
        """Fix: say in `given` what the options depend on, or samplers confuse different decisions."""
        found: dict[str, set[object]] = {}
        for choice in samples(space, 200):
            for decision, _ in space.made(choice):
                found.setdefault(decision.parameter, set()).add((decision.options, decision.ordered))
        assert [name for name, options in found.items() if len(options) > 1] == []

    def test_there_are_references(self, space: Space[Any]) -> None:
        """Fix: a handcrafted point to beat, in `references`."""
        references = space.references()
        assert references
        assert len({space.canonical(choice) for choice in references.values()}) == len(references), "two are the same"

    def test_neighbours_are_distinct_members_and_mutual(self, space: Space[Any]) -> None:
        """Fix: all points that differ in one decision, each once, the choice itself left out."""
        for choice in samples(space, 2):
            neighbours = list(space.neighbours(choice))
            assert choice not in neighbours
            assert len(set(neighbours)) == len(neighbours)
            for neighbour in random.Random(1).sample(neighbours, min(4, len(neighbours))):
                assert space.parse(as_json(neighbour)) == neighbour
                assert choice in set(space.neighbours(neighbour))

    def test_the_canonical_form_is_a_fixed_member(self, space: Space[Any]) -> None:
        """Fix: `canonical` leaves alone what it returns."""
        for choice in samples(space, 50):
            canonical = space.canonical(choice)
            assert space.canonical(canonical) == canonical
            assert space.parse(as_json(canonical)) == canonical

    def test_the_dial_scales_every_point_and_changes_nothing_else(self, space: Space[Any]) -> None:
        """Fix: a `dial` that names one ordered decision of every point, with options that rise in cost.

        No other decision may depend on it, nor `canonical` change it where it changes the network.
        """
        if space.dial is None:
            pytest.skip("it has no dial")
        for choice in [*samples(space, 2), next(iter(space.references().values()))]:
            dial, _ = space.dial_of(choice)
            assert dial.ordered
            assert dial == space.dial_of(space.sample(random.Random(1)))[0], "it has other options at another point"
            last = len(dial.options) - 1
            steps = sorted({last * i // MOST_DIALLED for i in range(MOST_DIALLED + 1)})
            scaled = [space.dialled(choice, step) for step in steps]
            for step, point in zip(steps, scaled, strict=True):
                expected = [(d, step if d == dial else position) for d, position in space.made(choice)]
                assert space.made(point) == expected, "another decision depends on it"
            built = [space.architecture(space.canonical(point), CLASSES).describe((64, 64)) for point in scaled]
            for costs in ([network.madds for network in built], [network.params for network in built]):
                assert costs == sorted(costs), "a higher option costs less"
                assert costs[0] < costs[-1]

    def test_networks_share_the_prefix_and_nothing_but_it(self, space: Space[Any]) -> None:
        """Fix: a `shared_stage` that no decision changes; a `canonical` that tells equal networks."""
        architectures = [space.architecture(choice, CLASSES) for choice in distinct(space, 5)]
        assert len(architectures) > 1
        assert len({architecture.key for architecture in architectures}) == len(architectures)
        if space.shared_stage is not None:
            assert len({architecture.cut(space.shared_stage)[0].key for architecture in architectures}) == 1

    @pytest.mark.parametrize("size", [(64, 64), (65, 49)], ids=str)
    @torch.no_grad()
    def test_networks_run_at_any_size(self, space: Space[Any], size: tuple[int, int]) -> None:
        """Fix: end with a `Resize` to the image, as `baselines.heads.classifier` does."""
        torch.manual_seed(0)
        for choice in islice(space.references().values(), 1):
            network = space.architecture(choice, CLASSES).network()
            assert network.train()(torch.randn(1, 3, *size)).shape == (1, CLASSES, *size)
            assert network.eval()(torch.randn(1, 3, *size)).shape == (1, CLASSES, *size)
        for choice in samples(space, 3):
            description = space.architecture(choice, CLASSES).describe(size)
            assert description.nodes[-1].shape == (CLASSES, *size)

    def test_every_point_can_be_drawn(self, space: Space[Any]) -> None:
        """Fix: a `drawn_place` that nodes' names begin with; `graphs` whose edges join nodes that they have."""
        for choice in samples(space, 20):
            names = [f"{node.name}." for node in space.architecture(choice, CLASSES).nodes]
            assert space.drawn_place is None or any(name.startswith(f"{space.drawn_place}.") for name in names)
            for graph in space.graphs(choice):
                nodes = {node.name for node in graph.nodes}
                assert nodes >= {end for edge in graph.edges for end in (edge.source, edge.target)}

    def test_unknown_options_are_refused(self, space: Space[Any]) -> None:
        """Fix: leave `extra="forbid"` in `model_config`, as `Space` has it."""
        with pytest.raises(ValueError, match="not_an_option"):
            type(space).model_validate({"not_an_option": 1})
