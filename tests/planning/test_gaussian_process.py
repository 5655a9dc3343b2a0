from collections.abc import Callable, Sequence
from random import Random
from typing import Any, ClassVar

import numpy as np
import pytest

from nasseg.graph import Architecture
from nasseg.planning.candidates import Trial
from nasseg.planning.job import Candidate
from nasseg.planning.samplers.base import Region
from nasseg.planning.samplers.gaussian_process import (
    LEAST_TRIALS,
    GaussianProcessSampler,
    at_top,
    described,
    expected_improvement,
    mutated,
    rising,
    scalarised,
)
from nasseg.space import Choice, Decide, Space
from nasseg.testing.branches import Branches, BranchSpace
from tests.planning.made_up import ScaledSpace, region_of


class Stack(Choice):
    context: str
    rate: int | None = None
    widths: tuple[int, ...]


class Stacks(Space[Stack]):
    """The second width is there only in a deep stack, the rate only in an atrous one."""

    def decisions(self, decide: Decide) -> None:
        if decide.category("context", ("none", "pool", "atrous")) == "atrous":
            decide.ordered("rate", range(1, 9))
        if decide.ordered("widths.0", range(8)) >= 4:
            decide.ordered("widths.1", range(8))

    def references(self) -> dict[str, Stack]:
        return {"plain": Stack(context="none", widths=(0,))}

    def architecture(self, choice: Stack, classes: int) -> Architecture:
        raise NotImplementedError


class OrderedRates(BranchSpace):
    """Branches whose order matters."""

    def canonical(self, choice: Branches) -> Branches:
        return choice


SPACE = Stacks()


def same(choice: Choice) -> float:
    return 1.0


REGION = region_of(SPACE, params=same)


def quality(choice: Stack) -> float:
    """Smooth, at most 0: best with rate 6 and widths 6 and 2."""
    depth = 1.0 if len(choice.widths) == 1 else abs(choice.widths[1] - 2) / 8
    rate = 1.0 if choice.rate is None else abs(choice.rate - 6) / 8
    return -rate - depth - abs(choice.widths[0] - 6) / 8


def trial(
    choice: Choice,
    values: tuple[float, ...] | None,
    *,
    below: Sequence[tuple[float, ...]] = (),
    final: bool = True,
    limits: Sequence[float] = (),
) -> Trial:
    named = {f"limit {place}": value for place, value in enumerate(limits)}
    candidate = Candidate(key=str(abs(hash(choice))), choice=choice.model_dump(mode="json"), constraints=named)
    return Trial(candidate, choice, level=1 + len(below), values=values, below=tuple(below), final=final)


def drawn(count: int, seed: int = 0) -> list[Stack]:
    rng = Random(seed)
    return [SPACE.sample(rng) for _ in range(count)]


def test_decisions_become_features_and_those_not_taken_are_neutral() -> None:
    half = 0.5**0.5
    a, b, c = described(
        SPACE,
        [
            Stack(context="none", widths=(0,)),
            Stack(context="atrous", rate=8, widths=(7, 0)),
            Stack(context="pool", widths=(7, 7)),
        ],
    )
    assert a == pytest.approx([half, 0, 0, 0, 0.5, 0.5])  # none, pool, atrous, widths.0, rate, widths.1
    assert b == pytest.approx([0, 0, half, 1, 1, 0])
    assert c == pytest.approx([0, half, 0, 1, 0.5, 1])


def test_one_decision_changes_and_all_are_as_likely_to() -> None:
    parent = Stack(context="atrous", rate=3, widths=(4, 5))
    found = [mutated(SPACE, parent, Random(seed)) for seed in range(400)]
    assert set(found) <= set(SPACE.neighbours(parent))
    changes = [
        sum(one.context != "atrous" for one in found),
        sum(one.rate not in (3, None) for one in found),
        sum(one.widths[0] != 4 for one in found),
        sum(one.widths[0] == 4 and one.widths[1] != 5 for one in found),
    ]
    assert sum(changes) == 400
    assert all(70 < count < 130 for count in changes)
    opened = [mutated(SPACE, Stack(context="none", widths=(4, 5)), Random(seed)) for seed in range(400)]
    assert {one.rate for one in opened if one.context == "atrous"} == set(range(1, 9))


def test_the_improvement_expected_is_the_integral_of_what_is_above_zero() -> None:
    better, deviation = np.array([-2.0, -0.1, 0.0, 0.3, 1.5]), np.array([1.0, 0.05, 0.7, 2.0, 0.2])
    x = np.linspace(-20, 20, 400_001)
    for at, (mean, width) in enumerate(zip(better, deviation, strict=True)):
        density = np.exp(-0.5 * ((x - mean) / width) ** 2) / (width * (2 * np.pi) ** 0.5)
        integral = (np.maximum(x, 0) * density).sum() * (x[1] - x[0])
        assert expected_improvement(better, deviation)[at] == pytest.approx(integral, abs=1e-7)


def test_a_line_in_the_logarithm_is_recovered() -> None:
    x = np.log(np.array([1e5, 3e5, 1e6, 4e6]))
    at = np.log(np.array([2e5, 1e8]))
    assert rising(x, 0.3 + 0.05 * x, at) == pytest.approx(0.3 + 0.05 * at)
    assert rising(np.ones(3), np.array([1.0, 2.0, 6.0]), at) == pytest.approx([3.0, 3.0])
    assert rising(x, 0.3 - 0.05 * x, at) == pytest.approx([(0.3 - 0.05 * x).mean()] * 2)


def test_with_nothing_else_to_learn_the_network_with_the_most_parameters_is_proposed() -> None:
    """The score is linear in the logarithm of the parameters, which are anything but smooth over the decisions."""
    params = {choice: 10 ** Random(str(choice)).uniform(5, 7) for choice in drawn(4000, seed=9)}
    weighed: list[Choice] = []

    def fit(choice: Choice) -> Choice:
        weighed.append(choice)
        return choice

    region = Region(SPACE, SPACE.sample, fit, params.__getitem__)  # type: ignore[arg-type]
    tried = [trial(choice, (0.1 * float(np.log(params[choice])),)) for choice in dict.fromkeys(drawn(12))]
    choice = GaussianProcessSampler(region).propose(tried, Random(0))
    new = [other for other in weighed if other not in {one.choice for one in tried}]
    assert params[choice] == max(params[other] for other in new)  # type: ignore[index]


def test_values_at_lower_rungs_gain_what_the_promoted_gained() -> None:
    """The promoted are better than the others, which must not pass for a gain of their rung."""
    a, b, c, d = drawn(4)
    tried = [
        trial(a, (0.2,), final=False),
        trial(b, (0.5,), below=[(0.3,)], final=False),
        trial(c, (0.75,), below=[(0.35,), (0.65,)]),
        trial(d, (0.1,), final=False),
    ]
    assert at_top(tried)[:, 0] == pytest.approx([0.2 + 0.25 + 0.1, 0.5 + 0.1, 0.75, 0.1 + 0.25 + 0.1])
    unpaired = [trial(a, (0.2,)), Trial(tried[1].candidate, b, level=3, values=(0.6,), final=True)]
    assert at_top(unpaired)[:, 0] == pytest.approx([0.2, 0.6])


def test_several_objectives_become_one_that_keeps_dominance() -> None:
    values = np.array([[0.0, 10.0], [1.0, 30.0], [0.5, 20.0], [0.2, 10.0]])
    best = set()
    for seed in range(20):
        scalar = scalarised(values, Random(seed))
        assert scalar[1] > scalar[2] > scalar[0]
        assert scalar[1] == pytest.approx(0)
        front = scalarised(np.array([[1.0, 0.0], [0.0, 1.0], [0.45, 0.45]]), Random(seed))
        best.add(int(front.argmax()))
    assert best == {0, 1, 2}
    assert scalarised(values[:, :1], Random(0)).tolist() == [0.0, 1.0, 0.5, 0.2]


def test_points_are_drawn_until_enough_trials_have_values() -> None:
    tried = [trial(choice, (quality(choice),)) for choice in drawn(LEAST_TRIALS - 1)]
    tried += [trial(choice, None, final=False) for choice in drawn(9, seed=1)]
    tried += [trial(choice, (1.0,), limits=(0.5,)) for choice in drawn(9, seed=2)]
    sampler = GaussianProcessSampler(REGION)
    assert [sampler.propose(tried, Random(seed)) for seed in range(5)] == [REGION.draw(Random(n)) for n in range(5)]


def test_nothing_is_proposed_twice_nor_beside_what_runs() -> None:
    """Of two points that are equally good, that is taken which has no twin that runs."""
    rates = OrderedRates(branches=2, count=9)
    options = [Branches(rates=pair) for pair in ((2, 8), (8, 2))]
    region = Region(rates, lambda rng: options[0], lambda choice: options[choice.rates[0] % 2], same)  # type: ignore[attr-defined]
    centres = [Branches(rates=(rate, rate)) for rate in (1, 3, 5, 7, 9)]
    tried = [trial(choice, (0.1 * (place % 2),)) for place, choice in enumerate(centres)]
    for twin, other in (((2, 9), options[1]), ((9, 2), options[0])):
        running = trial(Branches(rates=twin), None, final=False)
        found = {GaussianProcessSampler(region).propose([*tried, running], Random(seed)) for seed in range(5)}
        assert found == {other}
    known = trial(options[0], (0.05,))
    assert GaussianProcessSampler(region).propose([*tried, known], Random(0)) == options[1]


def test_every_proposal_is_within_the_limits_as_it_is() -> None:
    class Within(ScaledSpace):
        limit: ClassVar[float] = 5e4

    space = Within()

    def constraints(choice: Any) -> dict[str, float]:
        return {"params": (space.costs(choice).params or 0) / space.limit - 1}

    region = region_of(space, constraints, lambda choice: float(space.costs(choice).params or 0))
    rng = Random(0)
    tried = [trial(choice, (-float(sum(choice.branches)),)) for choice in (region.draw(rng) for _ in range(12))]  # type: ignore[attr-defined]
    for seed in range(3):
        choice = GaussianProcessSampler(region).propose(tried, Random(seed))
        assert -0.08 <= constraints(choice)["params"] <= 0
        assert region.fit(choice) == choice


def regrets(space: Space[Any], quality: Callable[[Any], float], proposals: int) -> tuple[float, float]:
    """The regret of the sampler after ten uniform samples and `proposals`, and of as many uniform ones; four seeds."""
    sampler = GaussianProcessSampler(region_of(space, params=same))
    process = uniform = 0.0
    for seed in range(4):
        rng = Random(seed)
        samples = [space.sample(rng) for _ in range(10 + proposals)]
        tried = [trial(choice, (quality(choice),)) for choice in samples[:10]]
        for number in range(proposals):
            choice = sampler.propose(tried, Random(number))
            tried.append(trial(choice, (quality(choice),)))
        process -= max(quality(t.choice) for t in tried)
        uniform -= max(map(quality, samples))
    return process / 4, uniform / 4


def test_better_than_uniform_samples_where_the_quality_is_smooth() -> None:
    best = (3, 7, 5, 2)
    process, uniform = regrets(
        OrderedRates(branches=4, count=9),
        lambda choice: -sum((rate - at) ** 2 for rate, at in zip(choice.rates, best, strict=True)) / 64,
        proposals=15,
    )
    assert process < uniform / 3


def test_better_than_uniform_samples_where_decisions_depend_on_others() -> None:
    process, uniform = regrets(SPACE, quality, proposals=15)
    assert process < uniform / 2
