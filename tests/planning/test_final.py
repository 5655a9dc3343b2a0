"""When candidates make way for the final, and which end-to-end runs come next."""

import math

import pytest

from nasseg.planning.candidates import FIRST_FRESH_SEED, Trial
from nasseg.planning.config import PlannerSettings
from nasseg.planning.final.clock import Clock, planned_seconds
from nasseg.planning.final.runs import FRESH_ROWS, LEAST_PROXY_SHARE, SPARE_SHARE, Final
from nasseg.planning.job import Job, JobResult, Kind, Outcome, Task
from nasseg.planning.machine import JobTimes
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


def row(seconds: float, rounds: int, jobs: int) -> float:
    """What the longest of `jobs` rows of runs takes, where one run of so many seconds has ended."""
    return rounds * seconds + max(1.0, math.sqrt(2 * math.log(jobs))) * 0.1 * seconds * math.sqrt(rounds)


def test_a_clock_expects_what_nearly_all_jobs_take() -> None:
    clock = Clock(100.0)
    assert clock.expected("full") == 0
    clock.note("full", 10.0)
    assert clock.expected("full") == pytest.approx(11)
    clock.note("full", 14.0)
    assert clock.expected("full") == pytest.approx(12 + 8**0.5)
    assert clock.expected("full", rounds=4, jobs=100) == pytest.approx(4 * 12 + 2 * math.sqrt(2 * math.log(100) * 8))
    for _ in range(20):
        clock.note("full", 3.0)
    assert clock.expected("full") == 3
    assert clock.expected(10) == 0


def test_the_final_starts_by_plan_and_then_by_what_runs_take() -> None:
    runs, clock = final()
    assert runs.starts_at(4, []) == 600
    clock.take_in(ended(TRIALS[0], 0, 100.0), is_run=True)
    TRIALS[0].full = {0: Outcome(key="0", status="ok", step=20, miou=0.5)}
    # Of the eight runs seven are left: four rounds of two, and one of fresh seeds.
    assert runs.starts_at(4, TRIALS[:1]) == pytest.approx((1 - SPARE_SHARE) * 1000 - row(100, 5, 2))
    for _ in range(20):
        clock.note("full", 200.0)
    rounds = int((1 - SPARE_SHARE - LEAST_PROXY_SHARE) * 1000 / 200)
    assert rounds == 3
    assert runs.starts_at(4, TRIALS[:1]) == pytest.approx(980 - 3 * 200)
    # As long as no finalist is found, rounds are given up, but for one; a first rung takes no time here.
    clock.note(10, 0.0)
    for now, start in ((300, 380), (400, 580), (600, 780), (790, 780)):
        clock.now = now
        assert runs.starts_at(4, TRIALS[:1], missing=2) == pytest.approx(start)
    clock.now = 850
    assert runs.starts_at(4, TRIALS[:1]) == 980, "no run would end in time, so candidates are tried to the end"


def test_where_everything_waits_for_the_first_run_it_counts() -> None:
    runs, clock = final(shared=True, concurrency=8)
    clock.take_in(ended(TRIALS[0], 0, 300.0, "prepare"), is_run=True)
    assert runs.starts_at(4, []) == pytest.approx(980 - row(300, 1, 8))
    assert (clock.expected("prepare"), clock.expected("full")) == (330, 330)
    # Storing is no part of what a job takes, but of what passes before candidates.
    early, clock = final(shared=True, concurrency=4)
    clock.take_in(ended(TRIALS[0], 0, 110.0), is_run=True)
    assert early.starts_at(4, []) == pytest.approx(980 - row(110, 3, 4))
    clock.take_in(ended(TRIALS[0], 0, 400.0, "proxy", storing=390.0), is_run=False)
    assert (clock.expected(20), clock.expected("store")) == pytest.approx((11, 429))
    assert early.starts_at(4, []) == pytest.approx(980 - row(110, 2, 4))
    endless, clock = final(total=math.inf)
    clock.take_in(ended(TRIALS[0], 0, 300.0), is_run=True)
    assert endless.starts_at(4, []) == math.inf


def test_a_shorter_run_tells_what_one_of_the_final_takes() -> None:
    runs, clock = final(shared=True, prepare_steps=5)
    clock.take_in(ended(TRIALS[0], 0, 10.0, "prepare"), is_run=False)
    assert (clock.expected("prepare"), clock.expected("full"), clock.known("full")) == (11, 44, 0)
    assert runs.starts_at(4, []) == pytest.approx(980 - 4 * row(10, 5, 2))
    # The first to end are the fastest.
    for _ in range(2):
        clock.take_in(ended(TRIALS[0], 1, 30.0), is_run=True)
        assert runs.starts_at(4, []) == pytest.approx(980 - 4 * row(10, 5, 2))
    clock.take_in(ended(TRIALS[0], 1, 30.0), is_run=True)
    assert runs.starts_at(4, []) == pytest.approx(980 - 5 * 30)


def test_jobs_of_which_none_has_ended_take_as_much_longer_than_planned_as_shorter_ones() -> None:
    clock = Clock(1000.0)
    clock.planned = {"prepare": 20.0, "full": 40.0, 10: 2.0, 30: 4.0, "store": 5.0}
    assert clock.expected("full") == 0
    clock.note("prepare", 60.0)
    kinds: list[Kind] = ["full", 10, 30, "store"]
    assert [clock.expected(kind) for kind in kinds] == pytest.approx([132, 6.6, 13.2, 16.5])
    assert [clock.known(kind) for kind in kinds] == [0, 0, 0, 0]
    # Heads on stored features are another matter than whole networks.
    clock.note(10, 1.0)
    assert [clock.expected(kind) for kind in kinds] == pytest.approx([132, 1.1, 2.2, 16.5])


def test_plans_say_how_long_jobs_of_each_kind_are() -> None:
    settings = PlannerSettings(rungs=(10, 30), full_steps=20, prepare_steps=5, concurrency=4)
    assert planned_seconds(settings, None, True) == {"full": 20, "prepare": 5}
    assert planned_seconds(settings, None, False) == {"full": 20, "prepare": 5, 10: 10, 30: 20}
    times = JobTimes(
        trial_step_seconds=1, trial_scoring_seconds=2, full_step_seconds=10, scoring_seconds=20, storing_seconds=8
    )
    full, prepare, first, second = 200 + 20 + 0.7, 50 + 20 + 0.7, 10 + 2 + 0.7, 20 + 2 + 0.7
    planned = {"full": full, "prepare": prepare, 10: first, 30: second, "store": 2.0}
    assert planned_seconds(settings, times, True) == pytest.approx(planned)


def test_fresh_seeds_come_up_after_all_runs_and_finalists_after_the_next_job() -> None:
    runs, clock = final()
    assert runs.comes_up_after(settled=True) == runs.comes_up_after(settled=False) == 0
    for _ in range(3):
        clock.note("full", 100.0)
    clock.note(10, 10.0)
    tasks: tuple[tuple[Task, float], ...] = (("full", 300.0), ("full", 350.0), ("proxy", 395.0))
    for number, (task, now) in enumerate(tasks):
        clock.now = now
        clock.start(
            Job(number=number, task=task, candidates=(TRIALS[0].candidate,), seed=0, start_step=0, stop_step=10)
        )
    clock.now = 396.0
    assert runs.comes_up_after(settled=True) == pytest.approx(54)
    assert runs.comes_up_after(settled=False) == pytest.approx(4)
    clock.now = 500.0
    assert runs.comes_up_after(settled=True) == runs.comes_up_after(settled=False) == 0


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
    clock.now = 1000 - row(100, 1, 1) - 0.1
    assert runs.next_run(TRIALS, None, []) == (TRIALS[0], 0)
    runs.start(TRIALS[0], 0)
    assert runs.next_run(TRIALS, None, []) is None, "the longer of two might not"
    clock.now = 1000 - row(100, 1, 2) - 0.1
    assert runs.next_run(TRIALS, None, []) == (TRIALS[1], 0)
    clock.now += 0.2
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
    runs.end(best, 1)
    finish(best, 1, 0.7)
    for expected in ((baseline, FIRST_FRESH_SEED), (best, FIRST_FRESH_SEED)):
        assert runs.next_run(trials, trials[:2], trials[2:]) == expected
        runs.start(*expected)
    assert runs.next_run(trials, trials[:2], trials[2:]) is None
    runs.end(best, FIRST_FRESH_SEED)
    finish(best, FIRST_FRESH_SEED, 0.0)
    assert best.miou == pytest.approx(0.7), "a fresh seed decides nothing"
    assert not better.fresh
    assert not reference.fresh


def test_the_last_round_is_for_fresh_seeds() -> None:
    found, baseline = trials = trained(0.6, 0.5)
    runs, clock = final(total=1000.0, concurrency=2)
    clock.note("full", 100.0)
    clock.now = 950 - row(100, 2, FRESH_ROWS) - 0.1
    assert runs.next_run(trials, [found], [baseline]) == (found, 2), "a round of fresh seeds can still follow"
    clock.now += 50
    assert runs.next_run(trials, [found], [baseline]) == (baseline, FIRST_FRESH_SEED), "first, as it may take longer"
    clock.now += 0.2
    order = []
    while (run := runs.next_run(trials, [found], [baseline])) is not None:
        order.append((run[0].number, run[1] - FIRST_FRESH_SEED))
        runs.start(*run)
    assert order == [(number, seed) for seed in range(6) for number in (1, 0)]
    alone, clock = final(total=1000.0, concurrency=1)
    clock.note("full", 100.0)
    clock.now = 1000 - row(100, 3, FRESH_ROWS) + 0.1
    run = alone.next_run(trials, [found], [baseline])
    assert run == (baseline, FIRST_FRESH_SEED), "one worker trains them one after the other"


def test_a_second_seed_leaves_time_for_the_fresh_ones() -> None:
    found, baseline = trials = trained(0.6, 0.5)
    runs, clock = final(total=1000.0, concurrency=2)
    clock.note("full", 100.0)
    clock.now = 850.0
    del found.full[1]
    assert runs.next_run(trials, [found], [baseline]) == (baseline, FIRST_FRESH_SEED)
    found.full.clear()
    assert runs.next_run(trials, [found], [baseline]) == (found, 0), "but each has one"


def test_who_would_wait_long_trains_fresh_seeds_of_the_references() -> None:
    runs, clock = final(shared=True, concurrency=8)
    references = trained(0.6, 0.5)
    assert runs.next_run(references, None, references) == (references[0], FIRST_FRESH_SEED)
    clock.note("full", 100.0)
    assert runs.next_run(references, None, references) is None, "the first has ended, so the features come soon"
    shorter, _ = final(shared=True, concurrency=8, prepare_steps=10)
    assert shorter.next_run(references, None, references) is None
    endless, _ = final(math.inf, shared=True, concurrency=8)
    assert endless.next_run(references, None, references) is None


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
    start = 980 - row(100, 2, 8)
    assert runs.starts_at(4, []) == pytest.approx(start)
    clock.note(10, 10.0)
    assert runs.starts_at(4, [], missing=1) == pytest.approx(start - 11 * (20 + 60) / 10)
    clock.note(90, 40.0)
    assert runs.starts_at(4, [], missing=1) == pytest.approx(start - 22 - 44)
    clock.now = 1000 - 66 - row(100, 1, 1) - 0.1
    assert not runs.is_pressed
    clock.now += 0.2
    assert runs.is_pressed
