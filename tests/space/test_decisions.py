"""What follows from a space's decisions, against the enumeration of small spaces."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import create_trial

from nasseg.graph import Architecture
from nasseg.planning.samplers.optuna import suggestions
from nasseg.space import Choice, Decide, Space
from nasseg.space.decisions import Decision, completions


class Point(Choice):
    op: str = "conv"
    rate: int | None = None
    depth: int = 0
    widths: tuple[float, ...] = ()


class MadeUpSpace(Space[Point]):
    def references(self) -> dict[str, Point]:
        return {"first": next(map(self._choice, completions(self.decisions, {})))}

    def architecture(self, choice: Point, classes: int) -> Architecture:
        raise NotImplementedError


class Plain(MadeUpSpace):
    def decisions(self, decide: Decide) -> None:
        decide.category("op", ("conv", "pool"))
        for i in range(2):
            decide.ordered(f"widths.{i}", (0.5, 1.0, 2.0))


class Conditional(MadeUpSpace):
    """An operator with or without a rate, and as many widths as layers."""

    def decisions(self, decide: Decide) -> None:
        if decide.category("op", ("conv", "atrous"), ways=(1, 4)) == "atrous":
            decide.ordered("rate", (2, 4, 8, 16))
        for i in range(decide.ordered("depth", range(3), ways=(1, 3, 9))):
            decide.ordered(f"widths.{i}", (0.5, 1.0, 2.0))


class Triangle(MadeUpSpace):
    """The rate is at most the depth."""

    def decisions(self, decide: Decide) -> None:
        depth = decide.ordered("depth", range(4), ways=range(1, 5))
        decide.ordered("rate", range(depth + 1), given=depth)


class Uncounted(MadeUpSpace):
    """As `Conditional`'s operator, without a word of the ways."""

    def decisions(self, decide: Decide) -> None:
        if decide.category("op", ("conv", "atrous")) == "atrous":
            decide.ordered("rate", (2, 4))


SIZES: dict[type[MadeUpSpace], int | None] = {Plain: 18, Conditional: 5 * 13, Triangle: 10, Uncounted: None}
every_space = pytest.mark.parametrize("space", [space() for space in SIZES], ids=lambda space: type(space).__name__)


def everything(space: MadeUpSpace) -> list[Point]:
    return [space._choice(made) for made in completions(space.decisions, {})]


def values(space: MadeUpSpace, point: Point) -> dict[str, Any]:
    return {decision.name: decision.options[position] for decision, position in space.made(point)}


@every_space
def test_size_by_enumeration(space: MadeUpSpace) -> None:
    points = everything(space)
    assert len(set(points)) == len(points) == (SIZES[type(space)] or 3)
    assert space.size() == SIZES[type(space)]


@pytest.mark.parametrize("space", [Plain(), Conditional(), Triangle()], ids=lambda space: type(space).__name__)
def test_samples_are_uniform_over_points(space: MadeUpSpace) -> None:
    points, rng = everything(space), random.Random(0)
    counts = Counter(space.sample(rng) for _ in range(200 * len(points)))
    assert counts.keys() == set(points)
    chi_square = sum((count - 200) ** 2 / 200 for count in counts.values())
    freedom = len(points) - 1
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


def test_options_are_drawn_exactly_in_proportion_to_their_ways() -> None:
    class EveryNumber(random.Random):
        def __init__(self) -> None:
            self.numbers = iter(range(100))

        def randrange(self, stop: int) -> int:  # type: ignore[override]
            assert stop == 10
            return next(self.numbers)

    rng, decision = EveryNumber(), Decision("width", (1, 2, 3), True, ways=(1, 6, 3))
    assert Counter(decision.draw(rng) for _ in range(10)) == {0: 1, 1: 6, 2: 3}
    huge = Decision("width", (1, 2), True, ways=(10**400, 10**400))
    assert {huge.draw(random.Random(seed)) for seed in range(20)} == {0, 1}


@every_space
def test_neighbours_differ_in_one_of_the_decisions_that_both_make(space: MadeUpSpace) -> None:
    points = everything(space)
    for point in points:
        own = values(space, point)
        expected = set()
        for other in points:
            theirs = values(space, other)
            if sum(own[name] != theirs[name] for name in own.keys() & theirs.keys()) == 1:
                expected.add(other)
        found = list(space.neighbours(point))
        assert set(found) == expected
        assert len(found) == len(expected)


@every_space
def test_neighbours_reach_the_whole_space(space: MadeUpSpace) -> None:
    reached: set[Point] = set()
    new = set(space.references().values())
    while new:
        reached |= new
        new = {near for point in new for near in space.neighbours(point)} - reached
    assert reached == set(everything(space))


def test_a_point_at_which_a_kept_value_is_no_option_is_no_neighbour() -> None:
    assert set(Triangle().neighbours(Point(depth=3, rate=2))) == {
        Point(depth=2, rate=2),
        Point(depth=3, rate=0),
        Point(depth=3, rate=1),
        Point(depth=3, rate=3),
    }


@given(st.data(), st.sampled_from(list(SIZES)))
def test_suggestions_describe_points_both_ways(data: st.DataObject, kind: type[MadeUpSpace]) -> None:
    space = kind()
    choice = space.choose(lambda decision: data.draw(st.integers(0, len(decision.options) - 1)))
    params, distributions = suggestions(space, choice)
    assert create_trial(params=params, distributions=distributions, value=0.0).params == params

    def again(decision: Decision) -> int:
        value = params[decision.parameter]
        return value if decision.ordered else decision.options.index(value)

    assert space.choose(again) == choice


def test_ordered_options_are_positions_and_categories_the_options() -> None:
    params, distributions = suggestions(Conditional(), Point(op="atrous", rate=8, depth=1, widths=(2.0,)))
    assert params == {"op": "atrous", "rate": 2, "depth": 1, "widths.0": 2}
    assert distributions == {
        "op": CategoricalDistribution(("conv", "atrous")),
        "rate": IntDistribution(0, 3),
        "depth": IntDistribution(0, 2),
        "widths.0": IntDistribution(0, 2),
    }
    params, _ = suggestions(Triangle(), Point(depth=3, rate=1))
    assert params == {"depth": 3, "rate after 3": 1}


@pytest.mark.parametrize(
    ("space", "data", "message"),
    [
        (Plain(), {"op": "pool", "widths": [1, 3]}, "choice: widths[1] is 3.0, but must be one of 0.5, 1.0, 2.0"),
        (Plain(), {"op": "skip", "widths": [1, 2]}, "choice: op is 'skip', but must be one of 'conv', 'pool'"),
        (Plain(), {"op": "pool", "widths": [1]}, "choice: widths has 1 item, but the space has 2"),
        (Plain(), {"op": "pool", "widths": [1, 2, 2]}, "choice: widths has 3 items, but the space has 2"),
        (Plain(), {"op": "pool", "widths": [1, 2], "rate": 2}, "choice: rate is 2, but must be None"),
        (Plain(), {"op": 3, "widths": [1, 2]}, "choice: op is 3, but must be a valid string"),
        (Conditional(), {"op": "conv", "depth": 1}, "choice: widths has 0 items, but the space has 1"),
        (Conditional(), {"op": "atrous"}, "choice: rate is None, but must be one of 2, 4, 8, 16"),
        (Triangle(), {"depth": 0, "rate": 1}, "choice: rate is 1, but must be 0"),
        (Plain(), [], "choice: is [], but must be a valid dictionary or instance of Point"),
    ],
)
def test_a_choice_of_another_space_is_refused_in_one_line(space: MadeUpSpace, data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^choice") as caught:
        space.parse(data)
    assert str(caught.value) == message


@every_space
def test_points_are_parsed(space: MadeUpSpace) -> None:
    for point in everything(space):
        assert space.parse(point.model_dump(mode="json")) == point


class Nested(Choice):
    inner: Point


def test_names_are_paths_of_fields() -> None:
    class Deep(Space[Nested]):
        def decisions(self, decide: Decide) -> None:
            decide.ordered("inner.widths.1", (1.0, 2.0))
            decide.ordered("inner.widths.0", (1.0, 2.0))

        def references(self) -> dict[str, Nested]:
            return {}

        def architecture(self, choice: Nested, classes: int) -> Architecture:
            raise NotImplementedError

    assert Deep().choose(lambda decision: int(decision.name == "inner.widths.1")) == Nested(
        inner=Point(widths=(1.0, 2.0))
    )
    with pytest.raises(ValueError, match=r"^choice: inner\.widths\[0\] is 3\.0, but must be one of 1\.0, 2\.0$"):
        Deep().parse({"inner": {"widths": [3, 1]}})


@pytest.mark.parametrize(
    ("names", "options", "ways", "message"),
    [
        (["rate"], [], None, "decision 'rate' has no options, but must have at least one"),
        (["rate"], [1, 2], [1], "decision 'rate' has 2 options, but 1 ways: give as many"),
        (["rate", "rate"], [1], None, "decision 'rate' fills a field that is filled already"),
        (["widths.0", "widths"], [1], None, "decision 'widths' fills a field that is filled already"),
        (["widths", "widths.0"], [1], None, "decision 'widths.0' is for a part of a field that another decision fills"),
    ],
)
def test_decisions_that_contradict_each_other_are_refused(
    names: list[str], options: list[int], ways: list[int] | None, message: str
) -> None:
    class Wrong(MadeUpSpace):
        def decisions(self, decide: Decide) -> None:
            for name in names:
                decide.ordered(name, options, ways=ways)

    with pytest.raises(ValueError, match=message):
        Wrong().sample(random.Random(0))


def test_a_space_names_the_class_of_its_choices() -> None:
    class Nameless(Space):  # type: ignore[type-arg]
        def decisions(self, decide: Decide) -> None: ...

        def references(self) -> dict[str, Choice]:
            return {}

        def architecture(self, choice: Choice, classes: int) -> Architecture:
            raise NotImplementedError

    with pytest.raises(TypeError, match=r"Nameless .* must derive from Space\[…\]"):
        Nameless().sample(random.Random(0))


class Opening(MadeUpSpace):
    """An operator that opens a thousand points, and one that opens two."""

    def decisions(self, decide: Decide) -> None:
        op = decide.category("op", ("conv", "atrous", "cell"))
        if op == "atrous":
            decide.ordered("rate", (2, 4))
        if op == "cell":
            decide.ordered("rate", range(1000))


def test_points_that_open_many_others_are_reached_by_mutation_alone() -> None:
    space = Opening()
    plain, cell = Point(op="conv"), Point(op="cell", rate=500)
    assert set(space.neighbours(plain)) == {Point(op="atrous", rate=2), Point(op="atrous", rate=4)}
    assert set(space.neighbours(cell)) == {Point(op="cell", rate=rate) for rate in range(1000) if rate != 500}
    rng = random.Random(0)
    assert {space.mutated(plain, rng).op for _ in range(50)} == {"atrous", "cell"}
    assert {space.mutated(cell, rng).op for _ in range(50)} == {"conv", "atrous", "cell"}


@every_space
def test_mutations_are_uniform_over_decisions_and_neighbours(space: MadeUpSpace) -> None:
    rng = random.Random(0)
    for point in everything(space)[:4]:
        found = Counter(space.mutated(point, rng) for _ in range(600))
        assert found.keys() >= set(space.neighbours(point))
        changed = Counter[str]()
        for other, count in found.items():
            own, theirs = values(space, point), values(space, other)
            changed[next(name for name in own if own[name] != theirs.get(name))] += count
        several = [decision.name for decision, _ in space.made(point) if len(decision.options) > 1]
        assert changed.keys() == set(several)
        assert max(changed.values()) < 1.5 * min(changed.values())
