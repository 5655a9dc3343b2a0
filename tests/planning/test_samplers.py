import random
from collections.abc import Sequence
from random import Random

import optuna
import pytest
from optuna.trial import TrialState

from nasseg.planning.candidates import Trial
from nasseg.planning.job import Candidate
from nasseg.planning.samplers import SAMPLERS
from nasseg.planning.samplers.neighbourhood import NeighbourhoodSampler
from nasseg.planning.samplers.optuna import OptunaSampler, as_trial
from nasseg.testing import SamplerConformance
from tests.planning.made_up import Cell, CellSpace, key_of, region_of

SPACE = CellSpace(branches=3, operators=7)
REGION = region_of(SPACE)


def tried_choice(
    choice: Cell, level: int, values: tuple[float, ...] | None, final: bool, constraints: tuple[float, ...] = ()
) -> Trial:
    named = {f"limit {number}": value for number, value in enumerate(constraints)}
    candidate = Candidate(key=key_of(choice), choice=choice.model_dump(), constraints=named)
    return Trial(candidate, choice, level=level, values=values, final=final)


def history(count: int, rungs: int = 3, seed: int = 0) -> list[Trial]:
    """Random choices, the nearer to operator 2 the better, a third of each rung promoted."""
    rng = random.Random(seed)
    tried = []
    for _ in range(count):
        choice = SPACE.sample(rng)
        rung = min(rungs, 1 + int(-rng.random() // -0.34) % 3)
        tried.append(tried_choice(choice, rung, (quality(choice),), rung == rungs))
    return tried


def quality(choice: Cell) -> float:
    return -float(sum(abs(op - 2) for op in choice.branches))


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
class TestSamplers(SamplerConformance):
    pass


@pytest.mark.parametrize("name", ["neighbourhood", "tpe", "nsga2"])
def test_learns_from_what_was_tried(name: str) -> None:
    tried = history(150)
    sampler = SAMPLERS[name](REGION)
    proposed = [quality(sampler.propose(tried, Random(seed))) for seed in range(60)]
    uniform = [quality(SPACE.sample(Random(seed))) for seed in range(60)]
    assert sum(proposed) / 60 > sum(uniform) / 60 + 1


def test_neighbours_are_those_of_the_best_of_the_highest_rung() -> None:
    best = Cell(branches=(2, 2, 3))
    tried = [
        tried_choice(Cell(branches=(6, 6, 6)), 1, (0.9,), False),
        tried_choice(best, 2, (0.5,), False),
        tried_choice(Cell(branches=(1, 1, 1)), 2, (0.4,), False),
        tried_choice(Cell(branches=(0, 0, 0)), 3, None, True),
        tried_choice(Cell(branches=(5, 5, 5)), 3, (0.9,), True, (0.1,)),
    ]
    sampler = NeighbourhoodSampler(REGION, uniform_share=0)
    neighbours = set(SPACE.neighbours(best))
    assert {sampler.propose(tried, Random(seed)) for seed in range(50)} <= neighbours


@pytest.mark.parametrize(
    ("tried", "state", "value", "intermediate"),
    [
        (tried_choice(Cell(branches=(1, 2, 3)), 0, None, False), TrialState.RUNNING, None, {}),
        (tried_choice(Cell(branches=(1, 2, 3)), 1, (0.5,), False), TrialState.PRUNED, None, {1: 0.5}),
        (tried_choice(Cell(branches=(1, 2, 3)), 3, (0.6,), True), TrialState.COMPLETE, 0.6, {3: 0.6}),
        (tried_choice(Cell(branches=(1, 2, 3)), 2, None, True), TrialState.FAIL, None, {}),
        (tried_choice(Cell(branches=(1, 2, 3)), 0, None, True, (0.5,)), TrialState.PRUNED, None, {}),
    ],
)
def test_optuna_is_told_the_truth(
    tried: Trial, state: TrialState, value: float | None, intermediate: dict[int, float]
) -> None:
    trial = as_trial(SPACE, tried)
    assert (trial.state, trial.value, trial.intermediate_values) == (state, value, intermediate)
    assert trial.params == {"branches.0": 1, "branches.1": 2, "branches.2": 3}


@pytest.mark.parametrize(
    ("tried", "state", "values"),
    [
        (tried_choice(Cell(branches=(1, 2, 3)), 1, (0.5, -2.0), False), TrialState.RUNNING, None),
        (tried_choice(Cell(branches=(1, 2, 3)), 3, (0.6, -2.0), True, (-0.1, 0.3)), TrialState.COMPLETE, [0.6, -2.0]),
    ],
)
def test_optuna_is_told_the_truth_of_several_objectives(
    tried: Trial, state: TrialState, values: list[float] | None
) -> None:
    trial = as_trial(SPACE, tried)
    assert (trial.state, trial.values, trial.intermediate_values) == (state, values, {})
    assert tuple(trial.constraints.values()) == tuple(tried.candidate.constraints.values())


@pytest.mark.parametrize("name", ["neighbourhood", "tpe", "nsga2"])
def test_learns_a_front(name: str) -> None:
    """The second objective is best where all operators are 6: the front lies between 2 and 6."""
    tried = [
        tried_choice(t.choice, t.level, (quality(t.choice), -float(sum(6 - op for op in t.choice.branches))), t.final)
        for t in history(300)
    ]
    sampler = SAMPLERS[name](REGION)
    low = [sum(op < 2 for op in sampler.propose(tried, Random(seed)).branches) for seed in range(60)]
    uniform = [sum(op < 2 for op in SPACE.sample(Random(seed)).branches) for seed in range(60)]
    assert sum(low) < 0.75 * sum(uniform)


def test_tpe_learns_what_breaks_limits() -> None:
    """All that were trained are equally good; of what was proposed, those of many high operators broke a limit."""
    rng, tried = random.Random(0), []
    for _ in range(80):
        choice = SPACE.sample(rng)
        over = (sum(choice.branches) - 7) / 7
        feasible = over <= 0
        tried.append(tried_choice(choice, 3 if feasible else 0, (1.0,) if feasible else None, True, (over,)))
    sampler = SAMPLERS["tpe"](REGION)
    proposed = sum(sum(sampler.propose(tried, Random(seed)).branches) > 7 for seed in range(60))
    uniform = sum(sum(SPACE.sample(Random(seed)).branches) > 7 for seed in range(60))
    assert proposed < uniform / 2


def test_optunas_sampler_sees_every_trial_once_and_in_order() -> None:
    seen: list[list[optuna.trial.FrozenTrial]] = []

    class Spy(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            seen.append([t for t in study.get_trials() if t.number != trial.number])

    tried: Sequence[Trial] = history(20)
    OptunaSampler(SPACE, lambda seed: Spy(seed)).propose(tried, Random(0))
    expected = [as_trial(SPACE, t) for t in tried]
    assert [(t.state, t.params) for t in seen[0]] == [(t.state, t.params) for t in expected]
