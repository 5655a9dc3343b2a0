"""The suite for samplers."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from random import Random
from typing import ClassVar

import numpy as np
import pytest

from nasseg.planning.candidates import Trial
from nasseg.planning.fitting import Fitting
from nasseg.planning.job import Candidate
from nasseg.planning.samplers import ENTRY_POINTS, samplers
from nasseg.planning.samplers.base import Region, Sampler
from nasseg.space import Choice
from nasseg.testing.branches import Branches, BranchSpace
from nasseg.testing.suite import Suite, elsewhere, how_to_register

Make = Callable[[Region], Sampler]
SPACE = BranchSpace()
RUNGS = 3
HISTORIES = ("empty", "running", "failed", "infeasible", "promoted", "several objectives")


def quality(choice: Branches) -> float:
    """Score a choice: at most 0, and higher the nearer all rates are to 3."""
    return -float(sum(abs(rate - 3) for rate in choice.rates))


def params(choice: Choice) -> float:
    """Make up the parameters of a network."""
    return float(1 + sum(SPACE.parse(choice.model_dump(mode="json")).rates))


REGION = Region.of(Fitting(SPACE, constraints=lambda _: {}), params)


def trial(
    choice: Branches, level: int, values: tuple[float, ...] | None, final: bool, limits: Mapping[str, float]
) -> Trial:
    """Make a candidate that reached `level`; `limits` above 0 are violated."""
    key = "-".join(map(str, SPACE.canonical(choice).rates))
    candidate = Candidate(key=key, choice=choice.model_dump(mode="json"), constraints=dict(limits))
    return Trial(candidate, choice, level=level, values=values, final=final)


def history(kind: str = "promoted", count: int = 40) -> list[Trial]:
    """Make up a search's history: uniform samples that all are still running, all failed, all violate a limit, …

    In a history with values, a third of each rung is promoted.
    """
    rng = Random(0)
    tried = []
    for _ in range(0 if kind == "empty" else count):
        choice, luck = SPACE.sample(rng), rng.random()
        level = 1 + (luck < 1 / 3) + (luck < 1 / 9)
        values: tuple[float, ...] = (quality(choice),)
        match kind:
            case "running":
                tried.append(trial(choice, 0, None, final=False, limits={}))
            case "failed":
                tried.append(trial(choice, 1, None, final=True, limits={}))
            case "infeasible":
                tried.append(trial(choice, 0, None, final=True, limits={"params": 0.5}))
            case "several objectives":
                both = (*values, -float(sum(choice.rates)))
                tried.append(trial(choice, level, both, final=level == RUNGS, limits={}))
            case _:
                tried.append(trial(choice, level, values, final=level == RUNGS, limits={"params": -0.5}))
    return tried


def proposals(sampler: Sampler, tried: Sequence[Trial], count: int = 8) -> list[dict[str, object]]:
    """Propose with each of a few generators, as JSON."""
    return [sampler.propose(tried, Random(seed)).model_dump(mode="json") for seed in range(count)]


def global_generators() -> tuple[object, str]:
    """Return the states of the global generators of `random` and `numpy`."""
    return random.getstate(), repr(np.random.get_state())  # noqa: NPY002


def fresh_proposals(make: Make) -> list[dict[str, object]]:
    """Let a new sampler propose after a history."""
    return proposals(make(REGION), history())


class SamplerConformance(Suite):
    """Checks of a sampler: a class or function that takes the `Region` to propose in.

    class TestEvolution(SamplerConformance):
        sampler = Evolution
    """

    subject = "sampler"
    sampler: ClassVar[Make]

    def test_the_command_line_knows_it(self, sampler: Make) -> None:
        """Fix: an entry point of the group `nasseg.samplers` in an installed package."""
        assert sampler in samplers().values(), how_to_register(sampler, ENTRY_POINTS)

    @pytest.mark.parametrize("kind", HISTORIES)
    def test_it_proposes_points_of_the_space_whatever_was_tried(self, sampler: Make, kind: str) -> None:
        """Fix: allow for no values, several, those of choices that violate a limit, and an empty history."""
        for proposal in proposals(sampler(REGION), history(kind)):
            assert SPACE.parse(proposal).model_dump(mode="json") == proposal

    @pytest.mark.parametrize("kind", HISTORIES)
    def test_what_was_tried_stays_as_it_is(self, sampler: Make, kind: str) -> None:
        """Fix: work on a copy of the history."""
        tried = history(kind)
        before = [asdict(one) for one in tried]
        proposals(sampler(REGION), tried)
        assert [asdict(one) for one in tried] == before

    def test_it_keeps_no_state(self, sampler: Make) -> None:
        """Fix: derive all from the history, so that a resumed search proposes the same as an uninterrupted one."""
        tried, used = history(), sampler(REGION)
        for count in range(0, len(tried), 8):
            used.propose(tried[:count], Random(count))
        assert proposals(used, tried) == fresh_proposals(sampler)

    def test_the_generator_decides(self, sampler: Make) -> None:
        """Fix: draw from the generator that `propose` is given."""
        found = fresh_proposals(sampler)
        assert found == fresh_proposals(sampler), "the same history and generator give another proposal"
        # After a history, a model may leave nothing to chance.
        first = proposals(sampler(REGION), history("empty"))
        assert any(proposal != first[0] for proposal in first), "another generator gives the same proposal"

    def test_no_other_generator_is_used(self, sampler: Make) -> None:
        """Fix: draw from the generator that `propose` is given, not from those of `random` and `numpy`."""
        before = global_generators()
        proposals(sampler(REGION), history())
        assert global_generators() == before, "it draws from a global generator, or seeds it"

    def test_another_process_proposes_the_same(self, sampler: Make) -> None:
        """Fix: no loop over a set, and nothing from the clock."""
        assert elsewhere(fresh_proposals, sampler) == fresh_proposals(sampler)
