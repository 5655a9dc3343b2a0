"""Planners of several searches that share one study: who tries, promotes and trains what."""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import ClassVar

import pytest

from nasseg.planning.candidates import Share, Trial
from nasseg.planning.config import PlannerSettings
from nasseg.planning.job import Candidate, Job, JobResult, Outcome
from nasseg.planning.planner import Planner
from nasseg.planning.samplers import SAMPLERS
from tests.planning.made_up import Cell, CellSpace, MadeUpWorker, candidate_of, key_of, region_of, true_miou

RUNGS = (10, 30, 90)


class WholeSpace(CellSpace):
    shared_stage: ClassVar[None] = None


class Claimed(dict[str, int]):
    """What is claimed, by name, with the number of the search that has it."""

    def share(self, number: int) -> Share:
        return Share(lambda name: self.setdefault(name, number) == number, number)


def make(
    share: Share | None = None, space: CellSpace | None = None, prepared: bool = False, **options: object
) -> Planner:
    space = space or CellSpace()
    return Planner(
        space,
        SAMPLERS["random"](region_of(space)),
        PlannerSettings.model_validate({"rungs": RUNGS, "full_steps": 200, "candidates": 12, "seeds": 2, **options}),
        describe=candidate_of,
        values=lambda outcome: (outcome.miou or 0.0,),
        score=lambda outcome: outcome.miou or 0.0,
        prepared=prepared,
        share=share,
    )


def scored(*branches: int, miou: Sequence[float], full: dict[int, float] | None = None) -> Trial:
    """A candidate of another search, with its scores at the rungs from the lowest on, and end to end by seed."""
    cell = Cell(branches=branches)
    made = candidate_of(cell)
    proxy = {step: outcome(made, step, score) for step, score in zip(RUNGS, miou, strict=False)}
    ended = {seed: outcome(made, 200, score) for seed, score in (full or {}).items()}
    return Trial(made, cell, proxy=proxy, full=ended, elsewhere=True)


def outcome(candidate: Candidate, step: int, miou: float) -> Outcome:
    return Outcome(key=candidate.key, status="ok", step=step, miou=miou)


def run(planner: Planner, jobs: int = 10**6) -> list[Job]:
    worker = MadeUpWorker()
    while len(worker.jobs) < jobs and (job := planner.next_job(0)) is not None:
        planner.tell(worker.run(job))
    return worker.jobs


def tried(jobs: Sequence[Job], stop: int) -> list[str]:
    return [c.key for job in jobs if job.task == "proxy" and job.stop_step == stop for c in job.candidates]


def test_what_another_search_has_claimed_is_neither_proposed_nor_counted() -> None:
    claimed = Claimed({key_of(Cell(branches=(0, 0, op))): 1 for op in range(5)})
    planner = make(claimed.share(0), CellSpace(branches=3, operators=5), candidates=None)
    jobs = run(planner)
    assert not set(tried(jobs, 10)) & {name for name, search in claimed.items() if search == 1}
    assert len(tried(jobs, 10)) == 35 - 5 == planner.tried  # all ways to take 3 of 5 operators
    assert planner.trial("0-0-0").elsewhere


def test_a_candidate_is_promoted_by_its_rank_among_all_and_by_its_own_search_only() -> None:
    planner = make(Claimed().share(0), candidates=4)
    run(planner, jobs=5)  # a reference prepared, and both of them taken up to the second rung
    best = [scored(2, 2, op, miou=[0.9]) for op in range(4)]
    assert planner.learn(best) == [planner.trial(trial.key) for trial in best]
    jobs = run(planner)
    promoted = tried(jobs, 30)
    # Of eight at the first rung two may go on, which the references did: none but those that fill the final follow.
    assert not set(promoted) & {trial.key for trial in best}
    alone = make(candidates=4)
    assert len(promoted) <= len(tried(run(alone), 30))
    assert [planner.trial(trial.key).level for trial in best] == [1] * 4


def test_the_final_trains_the_best_of_all_searches_and_no_run_twice() -> None:
    claimed = Claimed({"2-2-3 1": 1})
    planner = make(claimed.share(0), finalists=2)
    planner.learn([scored(2, 2, 3, miou=[0.5, 0.7, 0.9], full={0: 0.95}), scored(2, 2, 4, miou=[0.5, 0.7, 0.8])])
    jobs = run(planner)
    assert [candidate.key for candidate in planner.finalists()] == ["2-2-3", "2-2-4"]
    full = Counter((job.candidates[0].key, job.seed) for job in jobs if job.task == "full")
    assert max(full.values()) == 1
    assert not {("2-2-3", 0), ("2-2-3", 1)} & set(full)
    assert {("2-2-4", 0), ("2-2-4", 1)} <= set(full)
    assert ("2-2-3", 1000) in full, "a fresh seed of the best"


def test_where_another_search_has_a_run_the_next_is_handed_out_at_once() -> None:
    references = [key_of(choice) for choice in CellSpace().references().values()]
    planner = make(Claimed({f"{key} 1000": 1 for key in references}).share(0))
    fresh = {job.candidates[0].key for job in run(planner) if job.task == "full" and job.seed == 1000}
    assert len(fresh) == 1
    assert not fresh & set(references)


def test_what_is_learnt_twice_changes_nothing() -> None:
    planner = make(Claimed().share(0))
    news = [scored(2, 2, 3, miou=[0.5, 0.7])]
    assert len(planner.learn(news)) == 1
    assert planner.learn(news) == []
    assert planner.finished_at_rungs == (1, 1, 0)
    assert planner.learn([scored(2, 2, 3, miou=[0.5, 0.7, 0.8])]) == [planner.trial("2-2-3")]
    assert planner.finished_at_rungs == (1, 1, 1)


@pytest.mark.parametrize("space", [CellSpace(), WholeSpace()], ids=["features", "whole"])
def test_each_search_prepares_the_features_but_nobody_repeats_a_reference_that_gives_none(space: CellSpace) -> None:
    claimed = Claimed()
    planners = [make(claimed.share(number), space) for number in range(2)]
    first = [planner.next_job(0) for planner in planners]
    tasks = [(job.task, job.candidates[0].key) for job in first if job is not None]
    assert tasks == ([("prepare", "0-0-0")] * 2 if space.shared_stage else [("proxy", "0-0-0"), ("proxy", "4-4-4")])


def test_a_search_that_has_the_features_prepares_nothing() -> None:
    planner = make(Claimed().share(0), prepared=True)
    planner.learn([scored(0, 0, 0, miou=[], full={0: 0.5})])
    assert all(job.task != "prepare" for job in run(planner))


def test_searches_of_one_study_propose_differently() -> None:
    claimed = Claimed()
    proposed = []
    for number in range(2):
        jobs = run(make(claimed.share(number)))
        proposed.append(set(tried(jobs, 10)) - {"0-0-0", "4-4-4"})
        claimed.clear()
    assert proposed[0] == set(tried(run(make()), 10)) - {"0-0-0", "4-4-4"}
    assert proposed[0] != proposed[1]


def test_each_search_of_a_study_trains_relaxations_of_its_own() -> None:
    seeds = []
    for number in range(3):
        jobs = run(make(Claimed().share(number), relaxations=2, relax_steps=10))
        seeds.append({job.seed for job in jobs if job.task == "relax"})
    assert seeds == [{0, 1}, {2, 3}, {4, 5}]


class Study:
    """Searches that share a study, on a made-up clock: one tells the others what it did, some time later."""

    def __init__(
        self, planners: Sequence[Planner], claimed: Claimed, delay: float, takes: Callable[[Job], float]
    ) -> None:
        self.planners, self.claimed, self.delay, self.takes = planners, claimed, delay, takes
        self.jobs: list[list[Job]] = [[] for _ in planners]

    def run(self, end: Callable[[int, float], bool] = lambda number, clock: False) -> None:
        """Run all searches, each of which has one worker, until they have ended, or one's `end` has come."""
        clock, workers, order = 0.0, [MadeUpWorker() for _ in self.planners], 0
        waiting: list[tuple[float, int, Callable[[], None]]] = []

        def hand_out(number: int) -> None:
            nonlocal order
            if end(number, clock) or (job := self.planners[number].next_job(0)) is None:
                return
            order += 1
            heapq.heappush(waiting, (clock + self.takes(job), order, lambda: take_in(number, job)))

        def take_in(number: int, job: Job) -> None:
            nonlocal order
            if end(number, clock):
                return
            result: JobResult = workers[number].run(job)
            self.planners[number].tell(result)
            self.jobs[number].append(job)
            for other in range(len(self.planners)):
                if other != number:
                    told = [self.planners[number].trial(c.key).copied() for c in job.candidates]
                    for trial in told:
                        trial.elsewhere = self.claimed.get(trial.key, number) != other
                    order += 1
                    learn = self.planners[other].learn
                    heapq.heappush(waiting, (clock + self.delay, order, lambda learn=learn, told=told: learn(told)))
            hand_out(number)

        for number in range(len(self.planners)):
            hand_out(number)
        while waiting:
            clock, _, happen = heapq.heappop(waiting)
            happen()


def searched(searches: int, delay: float, end: Callable[[int, float], bool] = lambda number, clock: False) -> Study:
    claimed, rng = Claimed(), Random(0)
    space = CellSpace(branches=4, operators=6)
    planners = [make(claimed.share(number), space, candidates=15) for number in range(searches)]
    study = Study(planners, claimed, delay, lambda job: (job.stop_step - job.start_step) * rng.uniform(0.5, 2))
    study.run(end)
    return study


@pytest.mark.parametrize("searches", [2, 3])
@pytest.mark.parametrize("delay", [0.0, 40.0, 1000.0, math.inf])
def test_no_search_does_what_another_did_however_late_they_hear_of_each_other(searches: int, delay: float) -> None:
    study = searched(searches, delay)
    jobs = [job for jobs in study.jobs for job in jobs]
    done = Counter((c.key, job.stop_step, job.seed, job.task) for job in jobs for c in job.candidates)
    assert {name for name, count in done.items() if count > 1} <= {("0-0-0-0", 200, 0, "prepare")}
    assert all(planner.done and planner.tried == 15 for planner in study.planners)
    assert len({key for key, stop, _, task in done if (stop, task) == (10, "proxy")}) == 15 * searches
    if delay == 0:
        finals = [{c.key for c in planner.finalists()} for planner in study.planners]
        assert all(final == finals[0] for final in finals)
        best = max(finals[0], key=lambda key: true_miou(study.planners[0].trial(key).candidate, 90))
        assert study.planners[-1].trial(best).full


def test_where_one_search_ends_for_ever_in_mid_run_the_other_ends_its_own() -> None:
    study = searched(2, 5.0, end=lambda number, clock: number == 0 and clock > 300)
    assert study.planners[1].done
    assert study.planners[1].tried == 15
    assert study.planners[0].tried < 15
    finalists = {candidate.key for candidate in study.planners[1].finalists()}
    assert any(set(study.planners[1].trial(key).full) >= {0, 1} for key in finalists)
