"""When candidates make way for the final, and which end-to-end runs come next."""

import math

import pytest

from nasseg.planning.candidates import FIRST_FRESH_SEED, Trial
from nasseg.planning.config import PlannerSettings
from nasseg.planning.final import LEAST_PROXY_SHARE, SPARE_SHARE, Clock, Final
from nasseg.planning.job import Job, JobResult, Outcome, Task
from tests.planning.made_up import Cell, candidate_of

TRIALS = [Trial(candidate_of(Cell(branches=(n,))), Cell(branches=(n,)), n) for n in range(4)]


def score(outcome: Outcome) -> float:
    return outcome.miou or 0.0


def final(total: float = 1000.0, shared: bool = False, **settings: int) -> tuple[Final, Clock]:
    clock = Clock(total)
    given = {"finalists": 2, "seeds": 2, "concurrency": 2, **settings}
    return Final(PlannerSettings(rungs=(10,), full_steps=20, proxy_share=0.6, **given), clock, shared, score), clock


def ended(trial: Trial, seed: int, seconds: float = 1.0, task: Task = "full", storing: float = 0.0) -> JobResult:
    job = Job(number=0, task=task, candidates=(trial.candidate,), seed=seed, start_step=0, stop_step=20)
    outcome = Outcome(key=trial.key, status="ok", step=20, miou=0.5)
    return JobResult(job=job, outcomes=(outcome,), seconds=seconds, storing_seconds=storing)


def test_a_clock_expects_what_nearly_all_jobs_take() -> None:
    clock = Clock(100.0)
    assert clock.expected("full") == 0
    clock.note("full", 10.0)
    assert clock.expected("full") == pytest.approx(11)
    clock.note("full", 14.0)
    assert clock.expected("full") == pytest.approx(12 + 8**0.5)
    for _ in range(20):
        clock.note("full", 3.0)
    assert clock.expected("full") == 3
    assert clock.expected(10) == 0


def test_the_final_starts_by_plan_and_then_by_what_runs_take() -> None:
    runs, clock = final()
    assert runs.starts_at(4, []) == 600
    runs.end(TRIALS[0], ended(TRIALS[0], 0, 100.0))
    TRIALS[0].full = {0: Outcome(key="0", status="ok", step=20, miou=0.5)}
    # Of the eight runs seven are left: four rounds of two, and one of fresh seeds.
    assert runs.starts_at(4, TRIALS[:1]) == pytest.approx((1 - SPARE_SHARE) * 1000 - 5 * 110)
    for _ in range(20):
        clock.note("full", 200.0)
    rounds = int((1 - SPARE_SHARE - LEAST_PROXY_SHARE) * 1000 / 200)
    assert rounds == 3
    assert runs.starts_at(4, TRIALS[:1]) == pytest.approx(950 - 3 * 200)
    clock.now = 850
    assert runs.starts_at(4, TRIALS[:1]) == 950, "no run would end in time, so candidates are tried to the end"


def test_where_everything_waits_for_the_first_run_it_counts() -> None:
    runs, clock = final(shared=True, concurrency=8)
    runs.end(TRIALS[0], ended(TRIALS[0], 0, 300.0, "prepare"))
    assert runs.starts_at(4, []) == pytest.approx(950 - 330)
    assert (clock.expected("prepare"), clock.expected("full")) == (330, 330)
    stored, clock = final(shared=True, concurrency=8)
    stored.end(TRIALS[0], ended(TRIALS[0], 0, 300.0, "prepare", storing=200.0))
    assert (clock.expected("prepare"), clock.expected("full")) == pytest.approx((330, 110))
    endless, _ = final(total=math.inf)
    endless.end(TRIALS[0], ended(TRIALS[0], 0, 300.0))
    assert endless.starts_at(4, []) == math.inf


def test_one_seed_of_all_comes_before_the_next_of_any_and_others_after_them() -> None:
    for trial in TRIALS:
        trial.full = {}
    runs, clock = final()
    clock.note("full", 100.0)
    order = []
    while (run := runs.next_run(TRIALS[:2], iter(TRIALS), [])) is not None:
        order.append((run[0].number, run[1]))
        runs.start(*run)
    planned = [(0, 0), (1, 0), (0, 1), (1, 1)]
    others = [(2, 0), (2, 1), (3, 0), (3, 1)]
    more = [(number, seed) for seed in range(2, 6) for number in range(2)]
    assert order == planned + others + more
    unsettled, _ = final()
    assert unsettled.next_run([], None, []) is None


def test_no_run_starts_that_cannot_end_in_time() -> None:
    runs, clock = final()
    clock.note("full", 100.0)
    clock.now = 890.0
    assert runs.next_run(TRIALS, None, []) == (TRIALS[0], 0)
    clock.now = 890.1
    assert runs.next_run(TRIALS, None, []) is None


def trained(*mious: float) -> list[Trial]:
    """Trials that are trained end to end with two seeds."""
    trials = [Trial(trial.candidate, trial.choice, trial.number) for trial in TRIALS[: len(mious)]]
    for trial, miou in zip(trials, mious, strict=True):
        for seed in range(2):
            finish(trial, seed, miou)
    return trials


def finish(trial: Trial, seed: int, miou: float) -> None:
    trial.full[seed] = Outcome(key=trial.key, status="ok", step=20, miou=miou)


def test_without_a_clock_the_winner_and_the_baseline_get_one_fresh_seed_each() -> None:
    better, best, reference, baseline = trials = trained(0.6, 0.7, 0.4, 0.5)
    runs, _ = final(math.inf)
    del best.full[1]
    runs.start(best, 1)
    assert runs.next_run(trials, trials[:2], trials[2:]) is None, "the winner is not known yet"
    runs.end(best, ended(best, 1))
    finish(best, 1, 0.7)
    for expected in ((baseline, FIRST_FRESH_SEED), (best, FIRST_FRESH_SEED)):
        assert runs.next_run(trials, trials[:2], trials[2:]) == expected
        runs.start(*expected)
    assert runs.next_run(trials, trials[:2], trials[2:]) is None
    runs.end(best, ended(best, FIRST_FRESH_SEED))
    finish(best, FIRST_FRESH_SEED, 0.0)
    assert best.miou == pytest.approx(0.7), "a fresh seed decides nothing"
    assert not better.fresh
    assert not reference.fresh


def test_the_last_round_is_for_fresh_seeds() -> None:
    found, baseline = trials = trained(0.6, 0.5)
    runs, clock = final(total=1000.0, concurrency=2)
    clock.note("full", 100.0)
    clock.now = 780.0
    assert runs.next_run(trials, [found], [baseline]) == (found, 2), "a round of fresh seeds can still follow"
    clock.now = 781.0
    order = []
    while (run := runs.next_run(trials, [found], [baseline])) is not None:
        order.append((run[0].number, run[1] - FIRST_FRESH_SEED))
        runs.start(*run)
    assert order == [(number, seed) for seed in range(6) for number in (1, 0)]
    alone, clock = final(total=1000.0, concurrency=1)
    clock.note("full", 100.0)
    clock.now = 671.0
    run = alone.next_run(trials, [found], [baseline])
    assert run == (baseline, FIRST_FRESH_SEED), "one worker trains them one after the other"


def test_who_wins_late_gets_a_fresh_seed_too() -> None:
    first, second, baseline = trials = trained(0.6, 0.5, 0.4)
    runs, clock = final(total=1000.0, concurrency=4)
    clock.note("full", 100.0)
    clock.now = 790.0
    for trial in (baseline, first):
        runs.start(trial, FIRST_FRESH_SEED)
    finish(second, 2, 0.9)
    finish(first, FIRST_FRESH_SEED, 0.9)
    assert runs.next_run(trials, trials[:2], [baseline]) == (second, FIRST_FRESH_SEED)


def test_without_a_network_that_was_found_no_seed_is_fresh() -> None:
    (baseline,) = trials = trained(0.6)
    for total in (math.inf, 1000.0):
        runs, clock = final(total=total)
        clock.note("full", 100.0)
        clock.now = 850.0
        assert runs.next_run(trials, TRIALS[1:], [baseline]) is None


def test_the_way_to_the_top_rung_takes_its_time_before() -> None:
    clock = Clock(1000.0)
    settings = PlannerSettings(rungs=(10, 30, 90), full_steps=20, proxy_share=0.6, finalists=2, seeds=2, concurrency=8)
    runs = Final(settings, clock, False, score)
    clock.note("full", 100.0)
    assert runs.starts_at(4, []) == pytest.approx(950 - 2 * 110)
    clock.note(10, 10.0)
    assert runs.starts_at(4, [], climbing=True) == pytest.approx(730 - 11 * (20 + 60) / 10)
    clock.note(90, 40.0)
    assert runs.starts_at(4, [], climbing=True) == pytest.approx(730 - 22 - 44)
