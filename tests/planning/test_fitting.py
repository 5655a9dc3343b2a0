import itertools
from collections import Counter
from collections.abc import Mapping
from functools import cache
from random import Random
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasseg.graph import Architecture
from nasseg.planning.fitting import BAND, Fitting, require_fit
from nasseg.planning.job import Costs
from nasseg.planning.limits import Limits, require_reachable
from nasseg.space import Choice, Decide, Space
from tests.planning.made_up import Cell, CellSpace, ScaledCell, ScaledSpace

SPACE = ScaledSpace()
SHAPES = list(itertools.product(range(SPACE.operators), repeat=3))


def fitting(limits: Limits, scales: bool = True) -> Fitting[ScaledCell]:
    return Fitting(SPACE, cache(lambda choice: limits.constraints(SPACE.costs(choice))), scales)


def share(limits: Limits, choice: ScaledCell) -> float:
    """What a choice takes up of the limit that it takes up most of."""
    return 1 + max(limits.constraints(SPACE.costs(choice)).values())


def largest(limits: Limits, shape: tuple[int, ...]) -> ScaledCell | None:
    """The widest network of a shape that keeps the limits, of all widths."""
    every = [ScaledCell(branches=shape, width=width) for width in SPACE.widths]
    kept = [choice for choice in every if share(limits, choice) <= 1]
    return SPACE.canonical(kept[-1]) if kept else None


def test_made_up_costs_are_those_of_the_networks() -> None:
    rng = Random(0)
    for choice in [SPACE.sample(rng) for _ in range(5)]:
        network = SPACE.architecture(choice, 3).describe((64, 64))
        assert SPACE.costs(choice) == Costs(madds=network.madds, params=network.params)


@pytest.mark.parametrize(
    "limits",
    [Limits(params=5e4), Limits(madds=8e8), Limits(params=2e5, madds=8e8), Limits(params=1.2e3), Limits(params=4e6)],
    ids=str,
)
def test_a_point_becomes_the_largest_of_its_shape_that_keeps_the_limits(limits: Limits) -> None:
    outcomes = set()
    for shape in SHAPES:
        best = largest(limits, shape)
        fits = {fitting(limits).fit(ScaledCell(branches=shape, width=SPACE.widths[i])) for i in (0, 40, 99)}
        assert len(fits) == 1, "it depends on the width that was drawn"
        (fit,) = fits
        assert fit.choice == (best or SPACE.canonical(ScaledCell(branches=shape, width=0.1)))
        taken = share(limits, fit.choice)
        assert fit.in_band == (BAND <= taken <= 1)
        assert fit.miss == pytest.approx(max(0, taken - 1) + min(0, taken - BAND))
        assert fit.outcome == ("scaled" if fit.in_band else "beyond" if taken > 1 else "below")
        outcomes.add(fit.outcome)
    assert "scaled" in outcomes
    assert outcomes > {"scaled"} or min(limits.given.values()) == 8e8


class Size(Choice):
    size: int


class Sizes(Space[Size]):
    """A space of a dial alone."""

    dial: ClassVar[str] = "size"
    count: int

    def decisions(self, decide: Decide) -> None:
        decide.ordered("size", range(self.count))

    def references(self) -> dict[str, Size]:
        return {"first": Size(size=0), "last": Size(size=self.count - 1)}

    def architecture(self, choice: Size, classes: int) -> Architecture:
        raise NotImplementedError


@given(st.data(), st.lists(st.floats(0.01, 10), min_size=1, max_size=120), st.floats(0.01, 10))
def test_the_largest_is_found_although_costs_only_nearly_rise(
    data: st.DataObject, costs: list[float], limit: float
) -> None:
    """They rise but for any order within groups of four."""
    costs.sort()
    for start in range(0, len(costs), 4):
        costs[start : start + 4] = data.draw(st.permutations(costs[start : start + 4]))
    asked: list[int] = []

    def constraints(choice: Size) -> Mapping[str, float]:
        asked.append(choice.size)
        return {"cost": costs[choice.size] / limit - 1}

    fit = Fitting(Sizes(count=len(costs)), constraints).fit(Size(size=0))
    kept = [size for size, cost in enumerate(costs) if cost / limit - 1 <= 0]
    assert fit.choice.size == max(kept, default=0)
    assert len(asked) <= 1 + len(costs).bit_length() + 3 + 1


def test_a_space_without_a_dial_and_a_search_without_limits_or_for_a_front_are_left_alone() -> None:
    cell = Fitting(CellSpace(), lambda choice: {"cost": sum(choice.branches) / 7 - 1})
    assert not cell.by_dial
    for branches in SHAPES:
        fit = cell.fit(Cell(branches=branches))
        assert fit.choice == Cell(branches=tuple(sorted(branches)))
        assert fit.in_band == (sum(branches) <= 7)
    front, free = fitting(Limits(params=5e4), scales=False), fitting(Limits())
    for choice in (SPACE.canonical(SPACE.sample(Random(seed))) for seed in range(20)):
        assert free.fit(choice).choice == front.fit(choice).choice == choice
        assert free.fit(choice).in_band
        assert front.fit(choice).in_band == (share(Limits(params=5e4), choice) <= 1)


@pytest.mark.parametrize("limits", [Limits(params=5e4), Limits(madds=8e8), Limits(params=2e5, madds=8e8)], ids=str)
def test_a_thousand_random_points_lie_in_the_band(limits: Limits) -> None:
    rng = Random(0)
    at_limits = fitting(limits)
    drawn = [at_limits.draw(rng).choice for _ in range(1000)]
    assert all(BAND <= share(limits, choice) <= 1 for choice in drawn)


def test_points_are_drawn_uniformly_from_the_shapes_that_reach_the_band() -> None:
    limits, rng, count = Limits(params=4e3), Random(0), 1000
    at_limit = fitting(limits)
    seen = Counter(at_limit.draw(rng).choice for _ in range(count))
    best = [largest(limits, shape) for shape in SHAPES]
    reach = {choice for choice in best if choice is not None and share(limits, choice) >= BAND}
    assert 30 < len(reach) < len(SHAPES) - 30
    assert set(seen) == reach
    expected = count / len(reach)
    chi_squared = sum((times - expected) ** 2 / expected for times in seen.values())
    freedom = len(reach) - 1
    assert abs(chi_squared - freedom) < 5 * (2 * freedom) ** 0.5


def test_a_walk_finds_the_band_if_one_shape_in_thousands_reaches_it() -> None:
    space = ScaledSpace(channels=(24,) * 8)
    limits = Limits(params=space.costs(ScaledCell(branches=(0,) * 7 + (1,), width=0.1)).params)
    near = Fitting(space, lambda choice: limits.constraints(space.costs(choice)))
    reached = [near.draw(Random(seed)) for seed in range(5)]
    assert all(fit.in_band for fit in reached)
    assert len({fit.choice for fit in reached}) > 1


LEAST_OF_PLAIN = Limits(params=SPACE.costs(ScaledCell(branches=(1, 1, 1), width=0.1)).params)


@pytest.mark.parametrize(
    ("limits", "labels"),
    [
        (Limits(), ["plain", "large"]),
        (Limits(params=5e4), ["plain-scaled", "large-scaled"]),
        (LEAST_OF_PLAIN, ["plain-scaled", "large-beyond"]),
        (Limits(params=2e6), ["plain-below", "large-scaled"]),
    ],
    ids=str,
)
def test_references_are_scaled_and_their_labels_say_what_came_of_it(limits: Limits, labels: list[str]) -> None:
    found = fitting(limits).references()
    assert list(found) == labels
    for choice, given_one in zip(found.values(), SPACE.references().values(), strict=True):
        assert choice.branches == given_one.branches
        assert not limits.given or choice == (
            largest(limits, choice.branches) or SPACE.canonical(SPACE.dialled(choice, 0))
        )


def test_references_that_become_the_same_are_one() -> None:
    def at(limit: float) -> Fitting[Size]:
        return Fitting(Sizes(count=9), lambda choice: {"cost": choice.size / limit - 1})

    assert at(4).references() == {"first-scaled": Size(size=4)}
    assert at(8).references() == {"first-scaled": Size(size=8)}
    assert Fitting(Sizes(count=9), lambda choice: {}).references() == {"first": Size(size=0), "last": Size(size=8)}


def test_limits_that_no_network_comes_near_are_refused() -> None:
    for limits in (Limits(params=5e4), Limits(params=1.2e3), Limits()):
        require_reachable(limits, SPACE, SPACE.costs)
        require_fit(fitting(limits), limits)
    most = SPACE.costs(ScaledCell(branches=(4, 4, 4), width=4.0)).params
    assert most is not None
    far = Limits(params=2 * most)
    require_reachable(far, SPACE, SPACE.costs)
    message = r"takes up 92% to 100% of the limits \(at most .* M parameters\); the nearest takes up 50%; set them by"
    with pytest.raises(ValueError, match=message):
        require_fit(fitting(far), far)
    require_fit(fitting(far, scales=False), far)


def test_whether_a_space_with_a_dial_has_a_small_enough_network_is_told_at_once() -> None:
    asked: list[ScaledCell] = []

    def costs(choice: ScaledCell) -> Costs:
        asked.append(choice)
        return SPACE.costs(choice)

    least = min(SPACE.costs(ScaledCell(branches=shape, width=0.1)).params or 0 for shape in SHAPES)
    require_reachable(Limits(params=5e4, madds=8e8), SPACE, costs)
    assert len(asked) <= 4
    require_reachable(Limits(params=least), SPACE, costs)
    with pytest.raises(ValueError, match=r"max_params is .* but the smallest network found in the space has"):
        require_reachable(Limits(params=least - 1), SPACE, costs)
