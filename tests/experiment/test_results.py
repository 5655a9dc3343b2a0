from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasseg.cost import Latency
from nasseg.experiment.results import Results
from nasseg.pareto import non_dominated
from nasseg.planning.candidates import Standing, Trial
from nasseg.planning.final.estimate import estimated_scores
from nasseg.planning.job import Candidate, Outcome
from nasseg.planning.objective import Objective
from tests.planning.made_up import Cell

COST = 1000
OBJECTIVE = Objective(reference_cost=COST)
LOST = Outcome(key="", status="failed", step=0, message="its process died")


def ok(score: float, step: int = 4, madds: int = COST) -> Outcome:
    return Outcome(key="", status="ok", step=step, miou=score, madds=madds, params=1)


def made(proxy: dict[int, Any], full: dict[int, Any], key: str = "x", **candidate: Any) -> Trial:
    """A trial with mIoU or outcomes by step, and by seed end to end."""
    return Trial(
        Candidate(key=key, choice={}, **candidate),
        Cell(branches=(0,)),
        proxy={step: v if isinstance(v, Outcome) else ok(v, step) for step, v in proxy.items()},
        full={seed: v if isinstance(v, Outcome) else ok(v) for seed, v in full.items()},
    )


def results(*trials: Trial, latencies: dict[str, Latency] | None = None, by_measurement: bool = False) -> Results:
    return Results(trials, OBJECTIVE, (2, 6), latencies or {}, by_measurement)


def test_those_trained_end_to_end_rank_by_their_means_then_the_others_by_rung() -> None:
    trials: list[tuple[dict[int, Any], dict[int, Any]]] = [
        ({2: 0.9}, {}),
        ({2: 0.1, 6: 0.2}, {}),
        ({}, {0: 0.8}),
        ({6: 0.9}, {0: 0.3, 1: 0.5}),
        ({6: 0.1}, {0: 0.5, 1: 0.4}),
        ({}, {}),
        ({2: LOST}, {}),
        ({6: 0.3}, {0: LOST}),
    ]
    found = results(*(made(proxy, full, str(key)) for key, (proxy, full) in enumerate(trials)))
    assert [trial.key for trial in found.ranked] == ["2", "4", "3", "7", "1", "0"]
    assert found.best_score == pytest.approx(0.8)
    assert [trial.key for trial in found.front] == ["2"]
    assert [trial.key for trial in found.trials] == ["0", "1", "2", "3", "4", "6", "7"]


def test_one_that_breaks_a_limit_cannot_win_but_is_a_reference() -> None:
    beyond = made({2: 0.9}, {}, "a", label="plain", constraints={"params": 0.1})
    within = made({2: 0.1}, {}, "b", constraints={"params": -0.1})
    found = results(beyond, within)
    assert found.ranked == found.front == [within]
    assert found.references == {"plain": beyond}


def test_the_baseline_is_the_best_reference_of_those_trained_furthest_most_often() -> None:
    trained = {
        "once": made({2: 0.1}, {0: 0.9}, "a", label="once"),
        "worse": made({6: 0.3}, {0: 0.4, 1: 0.4}, "b", label="worse"),
        "better": made({2: 0.2}, {0: 0.5, 1: 0.5}, "c", label="better"),
        "short": made({2: 0.9}, {}, "d", label="short"),
        "longer": made({2: 0.1, 6: 0.2}, {}, "e", label="longer"),
    }
    assert list(results(*trained.values()).references) == ["better", "worse", "once", "longer", "short"]


def test_without_scores_there_is_no_best() -> None:
    found = results(made({}, {}), made({2: LOST}, {}))
    assert (found.best, found.best_score, found.ranked, found.front) == (None, None, [], [])


def test_costs_and_accuracies_survive_a_failed_training() -> None:
    trial = made({2: ok(0.2, 2, madds=7), 6: ok(0.3, 6, madds=7)}, {0: LOST})
    assert (trial.costs.madds, trial.miou) == (7, 0.3)


def test_the_front_is_by_latency_once_all_were_measured_on_the_tables_device() -> None:
    cheap, dear = made({6: ok(0.5, 6, madds=10)}, {}, "a"), made({6: ok(0.6, 6, madds=20)}, {}, "b")
    one = Latency(
        median_ms=2, p95_ms=2, runs=9, device="a phone", dtype="float32", batch=1, size=(8, 8), threads=1, torch="2"
    )
    measured = {"a": one, "b": one.model_copy(update={"median_ms": 1})}
    assert results(cheap, dear).front == [cheap, dear]
    assert results(cheap, dear, latencies=measured).front == [cheap, dear]
    assert results(cheap, dear, latencies={"b": measured["b"]}, by_measurement=True).front == [cheap, dear]
    assert results(cheap, dear, latencies=measured, by_measurement=True).front == [dear]


def test_leaders_are_compared_where_candidates_have_come() -> None:
    reference = made({2: 0.2, 6: 0.25}, {0: 0.6}, "r", label="plain")
    other = made({2: 0.3}, {}, "o", label="other")
    assert results().leaders() == (None, None, None)
    assert results(reference).leaders() == (Standing(end_to_end=True, step=0), reference, reference)
    low, high = made({2: 0.25}, {}, "low"), made({2: 0.1, 6: 0.24}, {}, "high")
    beyond = made({2: 0.9}, {}, "beyond", constraints={"params": 0.1})
    assert results(reference, other, low, beyond).leaders() == (Standing(end_to_end=False, step=2), other, other)
    assert results(reference, other, low, high).leaders() == (Standing(end_to_end=False, step=6), reference, reference)
    done = made({6: 0.3}, {0: 0.7, 1: 0.6}, "done")
    assert results(reference, low, done).leaders() == (Standing(end_to_end=True, step=0), done, reference)


scores = st.integers(1, 4).map(lambda tenths: tenths / 10)
runs = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from(["2", "6", "seed 0", "seed 1"]), st.one_of(st.none(), scores)),
    max_size=30,
)


@given(runs, st.lists(st.integers(1, 3), min_size=8, max_size=8))
def test_results_taken_in_one_by_one_are_those_of_all_at_once(
    runs: list[tuple[int, str, float | None]], costs: list[int]
) -> None:
    trials = [made({}, {}, str(number)) for number in range(8)]
    trials[0] = made({}, {}, "0", label="plain")
    trials[1] = made({}, {}, "1", label="beyond", constraints={"params": 0.1})
    for number, trial in enumerate(trials):
        trial.number = number
    found = results()
    for number, run, score in runs:
        outcome = LOST if score is None else ok(score, madds=costs[number])
        outcomes, at = (trials[number].full, int(run[-1])) if "seed" in run else (trials[number].proxy, int(run))
        if at not in outcomes:
            outcomes[at] = outcome.model_copy(update={"step": at}) if "seed" not in run else outcome
            found.take_in(trials[number])
            check(found, trials)


def check(found: Results, trials: list[Trial]) -> None:
    tried = [trial for trial in trials if trial.proxy or trial.full]
    scored = [trial for trial in tried if trial.standing and trial.candidate.feasible]
    scored.sort(key=lambda trial: trial.standing, reverse=True)
    estimated = estimated_scores(trials, 6, OBJECTIVE.score_of)
    expected = {trial: estimated.get(trial, found.score(trial)) for trial in scored}
    ranks = [(trial.standing, pytest.approx(expected[trial])) for trial in found.ranked]
    assert ranks == sorted(((trial.standing, expected[trial]) for trial in scored), reverse=True)
    assert set(found.ranked) == set(scored)
    furthest = [trial for trial in found.ranked if trial.standing == scored[0].standing]
    points = [(OBJECTIVE.cost(trial.costs), trial.miou or 0.0) for trial in furthest]
    assert (found.trials, found.trained_furthest) == (tried, furthest)
    assert found.front == [furthest[place] for place in non_dominated(points)]
    assert +found.counts == Counter(trial.status(6) for trial in tried)
    there, best, _ = found.leaders()
    others = [trial.standing for trial in tried if trial.standing and trial.candidate.label is None]
    assert there == max(others, default=scored[0].standing if scored else None)
    mious = [trial.miou_at(there) for trial in tried if there and trial.candidate.feasible]
    highest = max((miou for miou in mious if miou is not None), default=None)
    assert (best and there and best.miou_at(there)) == highest


def test_the_best_is_chosen_by_runs_and_proxies_together_and_who_has_the_higher_mean_is_named() -> None:
    # The means of the last two are nearly equal, and deviate; the proxies do not.
    trials = [made({2: 0.2, 6: p}, {0: p - 0.02, 1: p + 0.02}, key=str(p)) for p in (0.28, 0.29, 0.30, 0.31)]
    trials += [made({2: 0.2, 6: 0.30}, {0: 0.330, 1: 0.338}, key="lucky"), made({2: 0.2, 6: 0.33}, {0: 0.33, 1: 0.336})]
    for number, trial in enumerate(trials):
        trial.number = number
    found = results(*trials)
    scores = estimated_scores(trials, 6, OBJECTIVE.score_of)
    assert found.ranked == sorted(trials, key=scores.__getitem__, reverse=True)
    assert found.best is trials[-1]
    assert found.overruled is trials[-2]
    assert found.score(trials[-1]) == pytest.approx(0.333), "what is reported is the mean"
    assert found.best_score == found.score(trials[-1])
    # The same, taken in one run after the other.
    late = [made(dict(trial.proxy), {}, key=trial.key) for trial in trials]
    step_by_step = results(*late)
    for seed in range(2):
        for trial, whole in zip(late, trials, strict=True):
            trial.number = whole.number
            trial.full[seed] = whole.full[seed]
            step_by_step.take_in(trial)
    assert [trial.key for trial in step_by_step.ranked] == [trial.key for trial in found.ranked]
