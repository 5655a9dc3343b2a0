import math
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nasseg.jobs.runners.simulated import run_on_a_clock
from nasseg.pareto import non_dominated_ranks
from nasseg.planning.candidates import FIRST_FRESH_SEED, PROXY_SEED, Trial
from nasseg.planning.config import PlannerSettings
from nasseg.planning.fitting import BAND, Fitting
from nasseg.planning.job import Candidate, Job, JobResult, Outcome, Task
from nasseg.planning.limits import Limits
from nasseg.planning.planner import Planner
from nasseg.planning.samplers import SAMPLERS
from nasseg.space import Space
from tests.planning.made_up import (
    Cell,
    CellSpace,
    MadeUpWorker,
    ManyReferences,
    ScaledCell,
    ScaledSpace,
    candidate_of,
    key_of,
    region_of,
    true_miou,
)

SPACE = CellSpace(branches=3, operators=5)
REFERENCES = ("0-0-0", "4-4-4")


def miou(outcome: Outcome) -> float:
    assert outcome.miou is not None
    return outcome.miou


def values(outcome: Outcome) -> tuple[float]:
    return (miou(outcome),)


def make(
    space: Space[Any] = SPACE,
    sampler: str = "random",
    history: Sequence[Trial] = (),
    relaxed: Sequence[JobResult] = (),
    describe: Callable[[Any], Candidate] = candidate_of,
    values: Callable[[Outcome], tuple[float, ...]] = values,
    score: Callable[[Outcome], float] = miou,
    seed: int = 0,
    total_seconds: float = math.inf,
    scales: bool = True,
    **options: Any,
) -> Planner:
    first = next(iter(space.references().values()))
    known = {trial.choice: trial.full.get(0) for trial in history}.get(space.canonical(first))
    return Planner(
        space,
        SAMPLERS[sampler](region_of(space, lambda choice: describe(choice).constraints)),
        PlannerSettings(**{"rungs": (10, 30, 90), "full_steps": 200, "candidates": 20, **options}),
        seed=seed,
        total_seconds=total_seconds,
        scales=scales,
        describe=describe,
        values=values,
        score=score,
        history=history,
        relaxed=relaxed,
        prepared=known is not None and known.status == "ok",
    )


def run(planner: Planner, worker: MadeUpWorker | None = None, jobs: int = 10**6, spent: float = 0.0) -> list[Job]:
    """Run up to `jobs` jobs one after another."""
    worker = worker or MadeUpWorker()
    done: list[Job] = []
    while len(done) < jobs and (job := planner.next_job(spent)) is not None:
        planner.tell(worker.run(job))
        done.append(job)
    return done


def run_in_parallel(
    planner: Planner,
    workers: int,
    spent: Callable[[float], float] = lambda clock: 0.0,
    takes: Callable[[Job], float] | None = None,
) -> list[Job]:
    """Run jobs on workers with a made-up clock: a step takes a second, more or less, or a job what it `takes`."""
    worker, rng = MadeUpWorker(), Random(0)

    def run(job: Job, _: str) -> JobResult:
        seconds = takes(job) if takes else (job.stop_step - job.start_step) * rng.uniform(0.5, 2)
        return worker.run(job).model_copy(update={"seconds": seconds})

    run_on_a_clock(planner, workers, run, spent)
    assert planner.done
    return worker.jobs


def is_fresh(job: Job) -> bool:
    return job.seed >= FIRST_FRESH_SEED


def outcomes(planner: Planner) -> list[tuple[Any, ...]]:
    return [(trial.candidate, trial.proxy, trial.full, trial.level, trial.values) for trial in planner.trials]


def candidates(trials: Sequence[Trial]) -> list[Candidate]:
    return [trial.candidate for trial in trials]


def trainings(jobs: list[Job]) -> Counter[tuple[str, str, int, int]]:
    return Counter((job.task, c.key, job.stop_step, job.seed) for job in jobs for c in job.candidates)


def proxies(jobs: list[Job], stop: int) -> list[str]:
    return [c.key for job in jobs if job.task == "proxy" and job.stop_step == stop for c in job.candidates]


def test_only_references_are_trained_until_the_features_are_there_and_they_go_first() -> None:
    planner, worker = make(seeds=2), MadeUpWorker()
    prepare = planner.next_job(0)
    assert prepare is not None
    assert (prepare.task, prepare.candidates[0].label, prepare.stop_step, prepare.seed) == ("prepare", "aspp", 200, 0)
    beside = [job for job in iter(lambda: planner.next_job(0), None) if job is not None]
    assert {(job.task, job.candidates[0].label, job.seed) for job in beside} == {
        ("full", "published", 0),
        ("full", "aspp", 1),
        ("full", "published", 1),
    }
    assert len(beside) == 3
    assert not planner.done
    for job in (prepare, *beside):
        planner.tell(worker.run(job))
    jobs = run(planner)
    assert [job.candidates[0].label for job in jobs[:2]] == ["aspp", "aspp"]
    assert {c.label for job in jobs[:6] for c in job.candidates} == {"aspp", "published"}


def test_many_references_race_first_and_the_best_of_them_reach_the_final() -> None:
    space = ManyReferences()
    planner = make(space, finalists=2, seeds=2)
    jobs = run(planner)
    references = [key_of(choice) for choice in space.references().values()]
    # All but two take turns with new candidates, so that some are tried even if time ends early.
    assert [key if key in references else "new" for key in proxies(jobs, 10)[:7]] == [
        *references[:3],
        "new",
        references[3],
        "new",
        "new",
    ]
    assert len(proxies(jobs, 30)) < 20 // 2, "not all of them are promoted in any case"
    trials = {trial.key: trial for trial in planner.trials}
    ranked = sorted(references, key=lambda key: (trials[key].level, trials[key].values), reverse=True)
    full = Counter((job.candidates[0].key, job.seed) for job in jobs if job.task == "full" and not is_fresh(job))
    assert {run for run in full if run[0] in references} == {(key, seed) for key in ranked[:2] for seed in range(2)}
    assert {job.task for job in jobs} == {"proxy", "full"}


@pytest.mark.parametrize("stopped_after", [0, 1, 3, 7, 20, 33])
def test_a_race_of_references_goes_on_after_a_stop(stopped_after: int) -> None:
    unbroken, stopped = (make(ManyReferences(), seeds=2) for _ in range(2))
    run(unbroken)
    run(stopped, jobs=stopped_after)
    resumed = make(ManyReferences(), seeds=2, history=stopped.trials)
    run(resumed)
    assert outcomes(resumed) == outcomes(unbroken)


def test_a_whole_search_tries_all_promotes_the_best_and_trains_the_final() -> None:
    planner = make(finalists=2, seeds=2)
    jobs = run(planner)
    assert planner.done
    assert max(trainings(jobs).values()) == 1
    assert len(set(proxies(jobs, 10))) == 20
    assert set(REFERENCES) <= set(proxies(jobs, 90)) <= set(proxies(jobs, 30)) <= set(proxies(jobs, 10))
    assert len(proxies(jobs, 30)) >= 20 // 3
    finalists = [c.key for c in planner.finalists()]
    ranked = sorted(set(proxies(jobs, 90)) - set(REFERENCES), key=lambda key: -_proxy_miou(planner, key))
    assert finalists == ranked[:2]
    *deciding, first, second = [(job.candidates[0].key, job.seed) for job in jobs if job.task != "proxy"]
    assert Counter(deciding) == Counter((key, seed) for key in (*finalists, *REFERENCES) for seed in range(2))
    # Those that are reported get a fresh seed after the choice.
    best = {group: max(group, key=lambda key: planner.trial(key).miou or 0) for group in (REFERENCES, tuple(finalists))}
    assert [first, second] == [(key, FIRST_FRESH_SEED) for key in best.values()]


def _proxy_miou(planner: Planner, key: str) -> float:
    return next(miou(t.proxy[90]) for t in planner.trials if t.candidate.key == key)


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("most_waiting", [None, 3])
def test_every_promotion_starts_from_a_checkpoint_that_was_resumable(
    concurrency: int, most_waiting: int | None
) -> None:
    planner = make(candidates=40, concurrency=concurrency)
    worker, running, kept = MadeUpWorker(), [], planner.resumable(most_waiting)
    assert kept == set()
    promotions = 0
    while not planner.done:
        while len(running) < concurrency and (job := planner.next_job(0)) is not None:
            running.append(job)
            if job.task == "proxy" and job.start_step:
                promotions += 1
                assert {(c.key, job.start_step) for c in job.candidates} <= kept
                assert {(c.key, job.start_step) for c in job.candidates} <= planner.resumable(most_waiting)
        if running:
            planner.tell(worker.run(running.pop(0)))
            kept = planner.resumable(most_waiting)
            waiting = kept - {(c.key, job.start_step) for job in running for c in job.candidates}
            if most_waiting:
                assert len(waiting) <= 2 * most_waiting + len(REFERENCES)
    assert promotions >= 40 // 3
    ends = {(t.key, max(t.proxy)) for t in planner.trials if max(t.proxy) < 90}
    assert kept <= ends
    if most_waiting is None:
        assert kept == ends


def test_the_final_is_filled_where_halving_alone_leaves_too_few() -> None:
    planner = make(candidates=4, finalists=2)
    run(planner)
    assert len(planner.finalists()) == 2


def test_a_finite_space_is_tried_to_its_end() -> None:
    space = CellSpace(branches=2, operators=4)
    planner = make(space, candidates=None)
    jobs = run(planner)
    points = {key_of(Cell(branches=(a, b))) for a in range(4) for b in range(4)}
    assert set(proxies(jobs, 10)) == points
    assert planner.repeats > 0
    assert planner.done


def test_a_sampler_that_repeats_itself_is_replaced_by_samples() -> None:
    class Stubborn:
        def propose(self, history: Sequence[Trial], rng: Random) -> Cell:
            return Cell(branches=(4, 0, 2))

    plan = PlannerSettings(rungs=(10,), full_steps=20, candidates=6)
    planner = Planner(SPACE, Stubborn(), plan, describe=candidate_of, values=values, score=miou)
    assert len(set(proxies(run(planner), 10))) == 6
    assert planner.repeats >= 3 * 20


def test_candidates_share_jobs() -> None:
    planner = make(candidates_per_job=4)
    jobs = run(planner)
    assert len(set(proxies(jobs, 10))) == 20
    assert max(trainings(jobs).values()) == 1
    assert len([job for job in jobs if job.task == "proxy" and job.stop_step == 10]) == 6


def test_failed_candidates_are_not_promoted_and_not_in_the_final() -> None:
    good = [t.candidate.key for t in _ran(make()).trials if 90 in t.proxy]
    broken = frozenset(key for key in good if key not in REFERENCES) | {"4-4-4"}
    planner = _ran(make(), MadeUpWorker(broken))
    for trial in planner.trials:
        if trial.candidate.key in broken:
            assert list(trial.proxy) in ([10], [])
            assert not trial.full
    assert planner.done


def _ran(planner: Planner, worker: MadeUpWorker | None = None) -> Planner:
    run(planner, worker)
    return planner


def test_a_failed_preparation_ends_the_search_and_is_tried_again_on_resumption() -> None:
    planner = make()
    assert [job.task for job in run(planner, MadeUpWorker(frozenset({"0-0-0"})))] == ["prepare"]
    assert planner.done
    assert len(run(make(history=planner.trials))) > 20


def test_after_its_share_of_the_budget_the_proxy_only_serves_the_final() -> None:
    planner = make(candidates=None, proxy_share=0.5)
    run(planner, jobs=30, spent=0.49)
    tried = len(planner.trials)
    rest = run(planner, spent=0.5)
    assert len(planner.trials) == tried
    assert {job.task for job in rest} >= {"full"}
    assert len(planner.finalists()) == 3
    assert planner.done


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("full_seconds", [10, 30, 60])
def test_the_final_fits_however_long_it_takes(full_seconds: float, workers: int) -> None:
    total, clocks = 1000.0, [0.0]

    def spent(clock: float) -> float:
        clocks.append(clock)
        return clock / total

    options = {"candidates": None, "proxy_share": 0.6, "total_seconds": total, "concurrency": workers}
    planner = make(WithoutSharedStage(branches=5, operators=12), **options)
    run_in_parallel(planner, workers, spent, lambda job: full_seconds * (job.stop_step - job.start_step) / 200)
    final = {finalist.key for finalist in planner.finalists()}
    assert len(final) == 3
    trained = [trial for trial in planner.trials if {0, 1} <= set(trial.full)]
    assert final <= {trial.key for trial in trained}
    # Where time is short, their second seeds make way for the fresh ones.
    assert sum(trial.candidate.label is not None and 0 in trial.full for trial in planner.trials) == 2
    assert 0.88 * total - full_seconds < clocks[-1] <= total


def test_whether_a_run_has_time_is_known_before_one_has_ended() -> None:
    planner = make(WithoutSharedStage(), rungs=(10,), full_steps=20, total_seconds=100.0, concurrency=2)
    first, second = planner.next_job(0), planner.next_job(0)
    assert first is not None
    assert second is not None
    planner.tell(MadeUpWorker().run(first).model_copy(update={"seconds": 10.0}))
    run = second.model_copy(update={"task": "full", "stop_step": 20})
    # Of twice the steps, and by a tenth longer.
    assert [planner.has_time(run, spent) for spent in (0.77, 0.79, 1.0)] == [True, False, False]
    assert [planner.has_time(second, spent) for spent in (0.79, 0.88, 0.9)] == [True, True, False]


def test_who_would_wait_for_a_run_tries_new_candidates_that_are_back_before() -> None:
    options = {"rungs": (10,), "full_steps": 40, "finalists": 1, "seeds": 1, "candidates": None}
    planner = make(WithoutSharedStage(), total_seconds=1000.0, proxy_share=0.5, concurrency=4, **options)
    worker = MadeUpWorker()

    def end(job: Job | None, seconds: float) -> None:
        assert job is not None
        planner.tell(worker.run(job).model_copy(update={"seconds": seconds}))

    for _ in range(4):
        end(planner.next_job(0.0), 50.0)
    runs = [planner.next_job(0.75) for _ in range(3)]
    assert [job.task for job in runs if job] == ["full"] * 3
    # The runs take 200 s, and what is known then decides who gets the last.
    late = planner.next_job(0.75)
    assert late is not None
    assert (late.task, late.start_step) == ("proxy", 0)
    end(late, 50.0)
    end(planner.next_job(0.8), 50.0)
    end(planner.next_job(0.85), 50.0)
    assert planner.next_job(0.96) is None


def test_as_long_as_finalists_are_missing_candidates_are_tried_where_the_final_leaves_time() -> None:
    options = {"rungs": (100,), "full_steps": 100, "finalists": 2, "seeds": 1, "candidates": None}
    planner = make(WithoutSharedStage(), total_seconds=1000.0, proxy_share=0.5, **options)
    slow = iter([200.0] * 3)

    def takes(job: Job) -> float:
        return next(slow, 20.0)

    jobs = run_in_parallel(planner, 1, lambda clock: clock / 1000, takes)
    tasks = [job.task for job in jobs]
    assert tasks[:4] == ["proxy"] * 3 + ["full"], "the first runs take so long that the final begins with one finalist"
    assert "proxy" in tasks[4:]
    assert len([trial for trial in planner.trials if trial.full and trial.candidate.label is None]) >= 2


def test_a_spent_budget_ends_the_search() -> None:
    planner = make()
    run(planner, jobs=8)
    assert planner.next_job(1.0) is None
    assert planner.done


def test_results_are_told_once() -> None:
    planner = make()
    job = planner.next_job(0)
    assert job is not None
    result = MadeUpWorker().run(job)
    planner.tell(result)
    with pytest.raises(ValueError, match=f"job {job.number} is not in flight"):
        planner.tell(result)


@pytest.mark.parametrize("rungs", [(), (0, 10), (30, 10), (10, 10)])
def test_rungs_rise(rungs: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        PlannerSettings(rungs=rungs, full_steps=10)


def test_a_trial_keeps_its_values_at_the_rungs_below() -> None:
    planner = make(candidates=30)
    run(planner)
    levels = Counter(trial.level for trial in planner.trials)
    assert set(levels) == {1, 2, 3}
    for trial in planner.trials:
        every = [values(trial.proxy[step]) for step in (10, 30, 90)[: trial.level]]
        assert [*trial.below, trial.values] == every


def test_a_record_of_other_rungs_is_refused() -> None:
    planner = _ran(make())
    with pytest.raises(ValueError, match=r"rungs are \(20, 60\); must hold 10"):
        make(history=planner.trials, rungs=(20, 60))


@settings(deadline=None, max_examples=20)
@given(
    sampler=st.sampled_from(["random", "neighbourhood", "tpe", "gp"]),
    kill_after=st.integers(0, 60),
    handed_out=st.booleans(),
    per_job=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_killed_anywhere_and_rebuilt_it_trains_what_an_unbroken_search_trains(
    sampler: str, kill_after: int, handed_out: bool, per_job: int, seed: int
) -> None:
    options: dict[str, Any] = {"sampler": sampler, "candidates_per_job": per_job, "seed": seed}
    unbroken = make(**options)
    expected = run(unbroken)
    broken = make(**options)
    before = run(broken, jobs=kill_after)
    if handed_out:
        broken.next_job(0)
    started = {c.key for job in (*before, *broken.in_flight) for c in job.candidates}
    rebuilt = make(**options, history=[t for t in broken.trials if t.candidate.key in started])
    after = run(rebuilt)
    assert trainings(before) + trainings(after) == trainings(expected)
    assert outcomes(rebuilt) == outcomes(unbroken)


@settings(deadline=None, max_examples=20)
@given(
    workers=st.integers(1, 12),
    candidates=st.one_of(st.none(), st.integers(2, 30)),
    per_job=st.integers(1, 3),
    reduction=st.integers(2, 4),
    seconds=st.integers(100, 6000),
)
def test_on_many_workers_nothing_is_trained_twice_and_the_budget_holds(
    workers: int, candidates: int | None, per_job: int, reduction: int, seconds: int
) -> None:
    planner = make(candidates=candidates, candidates_per_job=per_job, reduction=reduction)
    jobs = run_in_parallel(planner, workers, lambda clock: clock / seconds)
    assert max(trainings(jobs).values()) == 1
    assert candidates is None or len(planner.trials) <= candidates
    finished: dict[str, int] = {}
    for job in jobs:
        if job.task == "proxy":
            for candidate in job.candidates:
                assert finished.get(candidate.key, 0) == job.start_step
                finished[candidate.key] = job.stop_step
    for trial in planner.trials:
        steps = list(trial.proxy)
        assert steps == [10, 30, 90][: len(steps)]
        assert all(trial.proxy[s].miou == true_miou(trial.candidate, s, PROXY_SEED) for s in steps)


def test_thousands_of_jobs_on_hundreds_of_workers() -> None:
    space = CellSpace(branches=5, operators=40)
    planner = make(space, candidates=2600)
    jobs = run_in_parallel(planner, workers=370)
    assert len(jobs) > 3600
    assert max(trainings(jobs).values()) == 1
    assert planner.finished_at_rungs[0] == 2600
    assert 866 <= planner.finished_at_rungs[1] < 1400


def test_all_candidates_are_pure_data() -> None:
    for trial in _ran(make()).trials:
        assert Candidate.model_validate_json(trial.candidate.model_dump_json()) == trial.candidate
        assert SPACE.canonical(SPACE.parse(trial.candidate.choice)).model_dump(mode="json") == trial.candidate.choice


# --- limits and fronts -----------------------------------------------------------------------------------------------


def cost_of(key: str) -> int:
    """The sum of the operators, plus one."""
    return 1 + sum(map(int, key.split("-")))


def within(limit: int) -> Callable[[Cell], Candidate]:
    def describe(choice: Cell) -> Candidate:
        constraints = {"cost": cost_of(key_of(choice)) / limit - 1}
        return candidate_of(choice).model_copy(update={"constraints": constraints})

    return describe


def accurate_and_cheap(outcome: Outcome) -> tuple[float, float]:
    return miou(outcome), -float(cost_of(outcome.key))


def whole_history(planner: Planner) -> list[Trial]:
    """What a record has of a search."""
    return [*planner.rejected, *planner.trials]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_breaks_a_limit_is_not_trained_but_for_the_references(sampler: str) -> None:
    space = CellSpace(branches=5, operators=9)
    planner = make(space, sampler, describe=within(11), candidates=40)
    jobs = run(planner)
    keys = set(proxies(jobs, 10))
    assert len(keys) == 40
    assert {key for key in keys if cost_of(key) > 11} == {"8-8-8-8-8"}
    assert all(cost_of(trial.key) > 11 for trial in planner.rejected)
    assert bool(planner.rejected) == (sampler != "gp"), "gp proposes within the limits"
    assert planner.done


def test_where_few_networks_keep_the_limits_all_are_found() -> None:
    planner = make(describe=within(4), candidates=None)
    run(planner)
    every = {key_of(SPACE.canonical(Cell(branches=(a, b, c)))) for a in range(5) for b in range(5) for c in range(5)}
    kept = {key for key in every if cost_of(key) <= 4}
    assert len(kept) == 7
    assert {trial.candidate.key for trial in planner.trials} == kept | {"4-4-4"}


def test_candidates_are_found_where_one_network_in_two_hundred_keeps_the_limits() -> None:
    space, looked_at = CellSpace(branches=5, operators=9), 0

    def describe(choice: Cell) -> Candidate:
        nonlocal looked_at
        looked_at += 1
        return within(6)(choice)

    planner = make(space, describe=describe, candidates=17)
    keys = set(proxies(run(planner), 10))
    assert sum(cost_of(key) <= 6 for key in keys) == 16
    assert looked_at < 17 * 100


def test_an_infeasible_reference_is_no_finalist_and_samplers_know_that_it_is() -> None:
    seen: list[Sequence[Trial]] = []

    class Spy:
        def propose(self, history: Sequence[Trial], rng: Random) -> Cell:
            seen.append(history)
            return SPACE.sample(rng)

    plan = PlannerSettings(rungs=(10,), full_steps=20, candidates=8)
    run(Planner(SPACE, Spy(), plan, describe=within(7), values=values, score=miou))
    reference = next(tried for tried in seen[-1] if tried.choice.branches == (4, 4, 4))
    assert (reference.candidate.feasible, reference.final, reference.level) == (False, True, 1)
    rejected = [tried for tried in seen[-1] if tried.level == 0 and tried.final]
    assert rejected
    assert all(tried.values is None and not tried.candidate.feasible for tried in rejected)


@pytest.mark.parametrize("sampler", ["random", "neighbourhood", "nsga2"])
def test_with_two_objectives_the_front_reaches_the_top_rung(sampler: str) -> None:
    planner = make(sampler=sampler, candidates=None, values=accurate_and_cheap, finalists=5)
    run(planner)
    low = {t.candidate.key: accurate_and_cheap(t.proxy[10]) for t in planner.trials}
    assert len(low) == 35
    ranks = non_dominated_ranks(list(low.values()))
    front = {key for key, rank in zip(low, ranks, strict=True) if rank == 0}
    promoted = {t.candidate.key for t in planner.trials if 30 in t.proxy}
    assert len(front & promoted) >= min(len(front), 35 // 3) - 1
    top = {t.candidate.key: accurate_and_cheap(t.proxy[90]) for t in planner.trials if 90 in t.proxy}
    best = non_dominated_ranks(list(top.values()))
    ends = {max(top, key=lambda key: top[key]), max(top, key=lambda key: (top[key][1], top[key][0]))}
    assert all(rank == 0 for key, rank in zip(top, best, strict=True) if key in ends)
    finalists = {candidate.key for candidate in planner.finalists()}
    assert ends - set(REFERENCES) <= finalists


def test_the_first_finalist_of_a_front_is_the_best_by_score() -> None:
    options: dict[str, Any] = {"rungs": (90,), "candidates": None, "values": accurate_and_cheap, "finalists": 2}
    before = make(**options)
    run(before)
    top = [trial for trial in before.trials if 90 in trial.proxy and trial.candidate.label is None]
    assert len(top) >= 3
    middle = sorted(top, key=lambda trial: miou(trial.proxy[90]))[len(top) // 2]
    assert middle.candidate not in before.finalists(), "a front by itself ranks its ends first"
    planner = make(**options, score=lambda outcome: -abs(miou(outcome) - miou(middle.proxy[90])))
    run(planner)
    first, second = planner.finalists()
    assert first == middle.candidate
    assert second != first


def test_no_short_run_has_the_seed_of_an_end_to_end_run() -> None:
    jobs = run(make(WithoutSharedStage(), rungs=(200,), seed=1))
    seeds = {task: {job.seed for job in jobs if job.task == task} for task in ("proxy", "full")}
    assert seeds["proxy"] == {PROXY_SEED + 1}
    assert not seeds["proxy"] & seeds["full"]


@settings(deadline=None, max_examples=20)
@given(
    sampler=st.sampled_from(["random", "neighbourhood", "tpe", "nsga2"]),
    kill_after=st.integers(0, 60),
    per_job=st.integers(1, 3),
    limit=st.integers(5, 12),
)
def test_within_limits_and_on_a_front_a_rebuilt_search_trains_what_an_unbroken_one_trains(
    sampler: str, kill_after: int, per_job: int, limit: int
) -> None:
    options: dict[str, Any] = {
        "sampler": sampler,
        "candidates_per_job": per_job,
        "describe": within(limit),
        "values": accurate_and_cheap,
    }
    unbroken = make(**options)
    expected = run(unbroken)
    broken = make(**options)
    before = run(broken, jobs=kill_after)
    started = {c.key for job in before for c in job.candidates}
    rejected = list(broken.rejected)
    rebuilt = make(**options, history=[t for t in whole_history(broken) if t in rejected or t.candidate.key in started])
    after = run(rebuilt)
    assert trainings(before) + trainings(after) == trainings(expected)
    assert outcomes(rebuilt) == outcomes(unbroken)
    # Where nothing is left to try, a rebuilt search looks for it once more.
    assert candidates(rebuilt.rejected)[: len(unbroken.rejected)] == candidates(unbroken.rejected)


# --- scaled to limits ------------------------------------------------------------------------------------------------

SCALED = ScaledSpace()
TARGET = Limits(params=5e4)


def scaled(**options: Any) -> Planner:
    return make(SCALED, **{"describe": SCALED.within(TARGET), **options})


def taken_up(trial: Trial) -> float:
    """The share of the target that a candidate's network takes up."""
    costs = SCALED.costs(SCALED.parse(trial.candidate.choice))
    assert costs.params is not None
    return costs.params / 5e4


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_candidate_is_scaled_to_the_target(sampler: str) -> None:
    planner = scaled(sampler=sampler, candidates=25)
    jobs = run(planner)
    assert len(set(proxies(jobs, 10))) == 25
    assert all(BAND <= taken_up(trial) <= 1 for trial in planner.trials)
    references = [(trial.candidate.label, trial.choice.branches) for trial in planner.trials[:2]]
    assert references == [("plain-scaled", (1, 1, 1)), ("large-scaled", (4, 4, 4))]
    assert proxies(jobs, 90)[:2] == [trial.key for trial in planner.trials[:2]]


def test_in_a_long_search_samplers_see_the_best_and_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasseg.planning.candidates.BEST_SHOWN", 3)
    monkeypatch.setattr("nasseg.planning.candidates.LATEST_SHOWN", 4)
    shorter = []

    class Spy:
        def propose(self, history: Sequence[Trial], rng: Random) -> Cell:
            trials = planner.trials
            best = sorted(trials, key=lambda trial: (-trial.level, [-value for value in trial.values or ()]))[:3]
            expected = sorted({*best, *trials[-4:]}, key=lambda trial: trial.number)
            assert history == [*planner.rejected[-4:], *expected]
            shorter.append(len(history) < len(planner.rejected) + len(trials))
            return space.sample(rng)

    space = CellSpace(branches=5, operators=9)
    plan = PlannerSettings(rungs=(10, 30), full_steps=90, candidates=30)
    planner = Planner(space, Spy(), plan, describe=within(11), values=values, score=miou)
    run(planner)
    assert not shorter[0]
    assert shorter[-1]


def test_samplers_see_what_was_trained_and_what_no_scaling_brings_to_the_target() -> None:
    seen: list[Sequence[Trial]] = []

    class Spy:
        def propose(self, history: Sequence[Trial], rng: Random) -> ScaledCell:
            seen.append(history)
            return SCALED.sample(rng)

    describe = SCALED.within(Limits(params=1.2e3))
    plan = PlannerSettings(rungs=(10,), full_steps=20, candidates=9)
    planner = Planner(SCALED, Spy(), plan, describe=describe, values=values, score=miou)
    run(planner)
    assert [trial.choice for trial in seen[-1] if trial.level][:9] == [trial.choice for trial in planner.trials][:8]
    assert all(0.92 * 1.2e3 <= (SCALED.costs(trial.choice).params or 0) <= 1.2e3 for trial in planner.trials[2:])
    beyond = [trial for trial in seen[-1] if not trial.candidate.feasible and not trial.candidate.label]
    assert beyond
    assert all(trial.choice.width == SCALED.widths[0] for trial in beyond)


def test_all_shapes_that_reach_the_target_are_tried() -> None:
    space = ScaledSpace(operators=3)
    planner = make(space, describe=space.within(Limits(params=4e3)), candidates=None)
    run(planner)
    at_target = [trial.choice for trial in planner.trials if BAND <= (space.costs(trial.choice).params or 0) / 4e3 <= 1]
    fitting = Fitting(space, lambda choice: space.within(Limits(params=4e3))(choice).constraints)
    shapes = [ScaledCell(branches=(a, b, c), width=1.0) for a in range(3) for b in range(3) for c in range(3)]
    every = {fit.choice for fit in map(fitting.fit, shapes) if fit.in_band}
    assert 9 < len(every) < 27
    assert set(at_target) == every
    assert planner.done


def test_a_front_takes_points_of_all_sizes_below_the_limit() -> None:
    planner = scaled(scales=False, candidates=25)
    run(planner)
    assert {trial.candidate.label for trial in planner.trials} == {"plain", "large", None}
    shares = [taken_up(trial) for trial in planner.trials if not trial.candidate.label]
    assert max(shares) <= 1
    assert sum(share < BAND for share in shares) > 15


@settings(deadline=None, max_examples=10)
@given(
    sampler=st.sampled_from(["random", "neighbourhood", "tpe"]),
    kill_after=st.integers(0, 40),
    limit=st.sampled_from([1.2e3, 4e3, 5e4]),
)
def test_scaled_to_a_target_a_rebuilt_search_trains_what_an_unbroken_one_trains(
    sampler: str, kill_after: int, limit: float
) -> None:
    options = {"sampler": sampler, "candidates": 12, "describe": SCALED.within(Limits(params=limit))}
    unbroken = scaled(**options)
    expected = run(unbroken)
    broken = scaled(**options)
    before = run(broken, jobs=kill_after)
    started = {c.key for job in before for c in job.candidates}
    rejected = list(broken.rejected)
    rebuilt = scaled(
        **options, history=[t for t in whole_history(broken) if t in rejected or t.candidate.key in started]
    )
    after = run(rebuilt)
    assert trainings(before) + trainings(after) == trainings(expected)
    assert outcomes(rebuilt) == outcomes(unbroken)
    assert candidates(rebuilt.rejected)[: len(unbroken.rejected)] == candidates(unbroken.rejected)


# --- by gradient -----------------------------------------------------------------------------------------------------

GRADIENT: dict[str, Any] = {"relaxations": 3, "relax_steps": 1, "finalists": 2, "seeds": 2, "proxy_share": 0.0}
"""Without time for trials after the relaxations."""


class WithoutSharedStage(CellSpace):
    shared_stage: ClassVar[None] = None


def found_by(seed: int) -> str:
    """The key of what the made-up relaxation with this seed finds."""
    return key_of(SPACE.sample(Random(f"relax {seed}")))


def relaxing(jobs: list[Job], worker: MadeUpWorker | None = None) -> list[JobResult]:
    return [(worker or MadeUpWorker()).run(job) for job in list(jobs) if job.task == "relax"]


def test_what_relaxations_find_are_the_candidates() -> None:
    planner = make(**GRADIENT)
    jobs = run(planner)
    assert [job.task for job in jobs[:5]] == ["prepare", "relax", "relax", "relax", "proxy"]
    assert [(job.seed, job.start_step, job.stop_step) for job in jobs[1:4]] == [(0, 0, 1), (1, 0, 1), (2, 0, 1)]
    found = {found_by(seed) for seed in range(3)}
    assert len(found) == 3
    for stop in (10, 30, 90):
        assert set(proxies(jobs, stop)) == {*REFERENCES, *found}
    finalists = {c.key for c in planner.finalists()}
    assert len(finalists) == 2
    assert finalists <= found
    runs = [job for job in jobs if job.task in {"prepare", "full"} and not is_fresh(job)]
    full = Counter((job.candidates[0].key, job.seed) for job in runs)
    assert full == Counter((key, seed) for key in (*finalists, *REFERENCES) for seed in range(2))
    assert planner.done


def test_relaxations_run_while_the_reference_is_prepared() -> None:
    planner = make(**GRADIENT)
    jobs = [planner.next_job(0) for _ in range(5)]
    assert [job.task for job in jobs if job] == ["prepare", "relax", "relax", "relax", "full"]


def test_a_relaxation_is_trained_in_parts_until_its_share_of_the_budget_is_spent() -> None:
    planner, worker = make(**{**GRADIENT, "relaxations": 1, "relax_steps": 25, "relax_share": 0.5}), MadeUpWorker()
    parts = []
    for spent in (0.0, 0.0, 0.2, 0.4, 0.6):
        job = planner.next_job(spent)
        assert job is not None
        planner.tell(worker.run(job))
        parts.append((job.task, job.start_step, job.stop_step))
    assert parts == [("prepare", 0, 200), ("relax", 0, 3), ("relax", 3, 6), ("relax", 6, 9), ("proxy", 0, 10)]
    last = relaxing(worker.jobs, worker)[-1:]
    goes_on = make(**{**GRADIENT, "relaxations": 1, "relax_steps": 25}, history=planner.trials, relaxed=last)
    assert [job.stop_step for job in run(goes_on) if job.task == "relax"] == [12, 15, 18, 21, 24, 25]
    assert found_by(0) in proxies(run(planner, worker, spent=0.6), 90)


def test_the_final_waits_for_all_relaxations() -> None:
    planner, worker = make(**{**GRADIENT, "relaxations": 2, "finalists": 1}), MadeUpWorker()
    prepare, first, second = (planner.next_job(0) for _ in range(3))
    assert prepare is not None
    assert first is not None
    assert second is not None
    for job in (prepare, first):
        planner.tell(worker.run(job))
    beside = run(planner)
    assert {job.candidates[0].key for job in beside if job.task == "full"} == set(REFERENCES)
    assert proxies(beside, 90) == [*REFERENCES, found_by(0)]
    planner.tell(worker.run(second))
    assert proxies(run(planner), 90) == [found_by(1)]
    assert planner.done


def test_finds_are_led_to_the_limits() -> None:
    planner = make(**GRADIENT, describe=within(6))
    jobs = run(planner)
    found = set(proxies(jobs, 90)) - set(REFERENCES)
    assert found
    assert all(cost_of(key) <= 6 for key in found)
    assert any(cost_of(found_by(seed)) > 6 for seed in range(3))
    again = make(**GRADIENT, describe=within(6), history=planner.trials, relaxed=relaxing(jobs))
    assert run(again) == []


def test_trials_go_on_from_what_relaxations_find() -> None:
    planner = make(sampler="neighbourhood", **{**GRADIENT, "proxy_share": 0.5})
    jobs = run(planner)
    first_rung = proxies(jobs, 10)
    found = {found_by(seed) for seed in range(3)}
    assert set(first_rung[:5]) == {*REFERENCES, *found}
    assert len(first_rung) == 20
    assert jobs.index(next(job for job in jobs if job.task == "proxy")) > max(
        place for place, job in enumerate(jobs) if job.task == "relax"
    )
    assert {*REFERENCES, *found} < set(proxies(jobs, 30)) < set(first_rung)
    assert {*REFERENCES, *found} <= set(proxies(jobs, 90))
    late = make(**{**GRADIENT, "proxy_share": 0.5})
    assert set(proxies(run(late, spent=0.5), 10)) == {*REFERENCES, *found}


def test_searches_with_other_seeds_train_other_relaxations() -> None:
    seeds = [job.seed for seed in range(3) for job in run(make(**GRADIENT, seed=seed)) if job.task == "relax"]
    assert seeds == list(range(9))


def test_equal_finds_are_one_candidate_and_a_find_may_be_a_reference() -> None:
    class Agreeing(MadeUpWorker):
        def run(self, job: Job) -> JobResult:
            finds = [Cell(branches=(1, 2, 3)), Cell(branches=(3, 2, 1)), Cell(branches=(4, 4, 4))]
            if job.task == "relax":
                found = finds[job.seed].model_dump(mode="json")
                return JobResult(job=job, outcomes=(), found=(found,), seconds=1)
            return super().run(job)

    planner = make(**GRADIENT)
    jobs = run(planner, Agreeing())
    assert proxies(jobs, 90) == [*REFERENCES, "1-2-3"]
    assert planner.repeats == 2
    assert max(trainings(jobs).values()) == 1


def test_a_failed_relaxation_leaves_the_others() -> None:
    planner = make(**GRADIENT)
    jobs = run(planner, MadeUpWorker(broken_seeds=frozenset({0, 2})))
    assert proxies(jobs, 90) == [*REFERENCES, found_by(1)]
    assert planner.done


def test_where_all_relaxations_fail_the_search_ends_and_a_resumed_one_tries_again() -> None:
    planner, worker = make(**GRADIENT), MadeUpWorker(broken_seeds=frozenset(range(3)))
    with pytest.raises(RuntimeError, match="all relaxations failed, the last with: loss is nan"):
        run(planner, worker)
    again = make(**GRADIENT, history=planner.trials, relaxed=relaxing(worker.jobs, worker))
    assert [job.seed for job in run(again) if job.task == "relax"] == [0, 1, 2]


def test_finds_are_tried_even_where_the_relaxations_took_longer_than_planned() -> None:
    planner = make(**GRADIENT)
    run(planner, jobs=4, spent=0.4)
    assert set(proxies(run(planner, spent=0.9), 90)) == {*REFERENCES, *(found_by(seed) for seed in range(3))}


@pytest.mark.parametrize(("options", "task"), [({}, "proxy"), (GRADIENT, "relax")])
def test_without_a_shared_stage_no_reference_is_trained_before_the_final(options: dict[str, Any], task: Task) -> None:
    planner = make(WithoutSharedStage(), **options)
    jobs = run(planner)
    tasks = [job.task for job in jobs]
    assert tasks[0] == task
    assert "prepare" not in tasks
    assert set(tasks[tasks.index("full") :]) == {"full"}
    assert {job.candidates[0].key for job in jobs if job.task == "full"} > set(REFERENCES)
    assert planner.done


@settings(deadline=None, max_examples=20)
@given(kill_after=st.integers(0, 25), handed_out=st.booleans(), shared=st.booleans(), broken=st.sets(st.integers(0, 1)))
def test_a_search_by_gradient_killed_anywhere_trains_what_an_unbroken_one_trains(
    kill_after: int, handed_out: bool, shared: bool, broken: set[int]
) -> None:
    space = SPACE if shared else WithoutSharedStage()
    options = {**GRADIENT, "proxy_share": 1.0, "candidates": 9}
    expected = run(make(space, **options), MadeUpWorker(broken_seeds=frozenset(broken)))
    planner, worker = make(space, **options), MadeUpWorker(broken_seeds=frozenset(broken))
    before = run(planner, worker, jobs=kill_after)
    if handed_out:
        planner.next_job(0)
    started = {c.key for job in (*before, *planner.in_flight) for c in job.candidates}
    history = [t for t in planner.trials if t.candidate.key in started]
    relaxed = relaxing(before, worker)
    after = run(make(space, **options, history=history, relaxed=relaxed), worker)
    assert trainings(before) + trainings(after) == trainings(expected)
    seeds = [job.seed for job in (*before, *after) if job.task == "relax"]
    assert set(seeds) == {0, 1, 2}
    assert len(seeds) == 3 or all(seed in broken for seed in seeds[: len(relaxed)])
