import random
from collections.abc import Sequence
from random import Random

import optuna
import pytest
from made_up import Cell, CellSpace
from optuna.trial import TrialState

from nasseg.search.optuna_sampler import OptunaSampler, as_trial
from nasseg.search.samplers import SAMPLERS, NeighbourhoodSampler, Tried

SPACE = CellSpace(branches=3, operators=7)


def history(count: int, rungs: int = 3, seed: int = 0) -> list[Tried]:
    """Random choices, the nearer to operator 2 the better, a third of each rung promoted."""
    rng = random.Random(seed)
    tried = []
    for _ in range(count):
        choice = SPACE.sample(rng)
        rung = min(rungs, 1 + int(-rng.random() // -0.34) % 3)
        tried.append(Tried(choice, rung, (quality(choice),), rung == rungs))
    return tried


def quality(choice: Cell) -> float:
    return -float(sum(abs(op - 2) for op in choice.branches))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_proposal_depends_on_history_and_generator_alone(name: str) -> None:
    tried = history(40)
    used, fresh = SAMPLERS[name](SPACE), SAMPLERS[name](SPACE)
    for count in range(0, 40, 8):
        used.propose(tried[:count], Random(count))
    proposals = [used.propose(tried, Random(seed)) for seed in range(8)]
    assert proposals == [fresh.propose(tried, Random(seed)) for seed in range(8)]
    assert len(set(proposals)) > 1
    assert all(SPACE.parse(p.model_dump()) == p for p in proposals)


@pytest.mark.parametrize("name", SAMPLERS)
def test_works_without_history(name: str) -> None:
    assert isinstance(SAMPLERS[name](SPACE).propose([], Random(0)), Cell)


@pytest.mark.parametrize("name", ["neighbourhood", "tpe", "nsga2"])
def test_learns_from_what_was_tried(name: str) -> None:
    tried = history(150)
    sampler = SAMPLERS[name](SPACE)
    proposed = [quality(sampler.propose(tried, Random(seed))) for seed in range(60)]
    uniform = [quality(SPACE.sample(Random(seed))) for seed in range(60)]
    assert sum(proposed) / 60 > sum(uniform) / 60 + 1


def test_neighbours_are_those_of_the_best_of_the_highest_rung() -> None:
    best = Cell(branches=(2, 2, 3))
    tried = [
        Tried(Cell(branches=(6, 6, 6)), 1, (0.9,), False),
        Tried(best, 2, (0.5,), False),
        Tried(Cell(branches=(1, 1, 1)), 2, (0.4,), False),
        Tried(Cell(branches=(0, 0, 0)), 3, None, True),
    ]
    sampler = NeighbourhoodSampler(SPACE, uniform_share=0)
    neighbours = set(SPACE.neighbours(best))
    assert {sampler.propose(tried, Random(seed)) for seed in range(50)} <= neighbours


@pytest.mark.parametrize(
    ("tried", "state", "value", "intermediate"),
    [
        (Tried(Cell(branches=(1, 2, 3)), 0, None, False), TrialState.RUNNING, None, {}),
        (Tried(Cell(branches=(1, 2, 3)), 1, (0.5,), False), TrialState.PRUNED, None, {1: 0.5}),
        (Tried(Cell(branches=(1, 2, 3)), 3, (0.6,), True), TrialState.COMPLETE, 0.6, {3: 0.6}),
        (Tried(Cell(branches=(1, 2, 3)), 2, None, True), TrialState.FAIL, None, {}),
    ],
)
def test_optuna_is_told_the_truth(
    tried: Tried, state: TrialState, value: float | None, intermediate: dict[int, float]
) -> None:
    trial = as_trial(SPACE, tried)
    assert (trial.state, trial.value, trial.intermediate_values) == (state, value, intermediate)
    assert trial.params == {"op_0": "1", "op_1": "2", "op_2": "3"}


def test_optunas_sampler_sees_every_trial_once_and_in_order() -> None:
    seen: list[list[optuna.trial.FrozenTrial]] = []

    class Spy(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            seen.append([t for t in study.get_trials() if t.number != trial.number])

    tried: Sequence[Tried] = history(20)
    OptunaSampler(SPACE, lambda seed: Spy(seed)).propose(tried, Random(0))
    expected = [as_trial(SPACE, t) for t in tried]
    assert [(t.state, t.params) for t in seen[0]] == [(t.state, t.params) for t in expected]
