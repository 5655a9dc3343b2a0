"""The planner, which hands out jobs and takes in their results. It knows no Ray, clock or file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nasseg.planning.candidates import PROXY_SEED, Candidates, Newcomers, Share, Trial, read_from, run_name
from nasseg.planning.config import PlannerSettings
from nasseg.planning.final.clock import Clock, Taken
from nasseg.planning.final.runs import FINAL_REFERENCES, Contenders, Final
from nasseg.planning.fitting import Fitting
from nasseg.planning.halving import Ladder
from nasseg.planning.job import Candidate, Job, JobResult, Outcome, Task
from nasseg.planning.machine import JobTimes
from nasseg.planning.relaxations import RelaxationSchedule
from nasseg.planning.samplers.base import Sampler
from nasseg.planning.samplers.proposals import Proposals
from nasseg.space import Choice, Space


class Planner:
    """The planner of a search of `space`.

    If the space has a shared stage, the first reference is trained end to end, which gives the features that all share,
    and proxies wait for it. Candidates are tried by proxy, the references among the first (`Newcomers`), with
    asynchronous successive halving: a promotion is a job from the candidate's checkpoint. Finally the best of the top
    rung and the best references are trained end to end, with several seeds.

    A search by gradient first trains relaxations. The few choices that they find go to the top rung, as the references
    do; then the sampler continues from there.

    With limits and a space that has a dial, all proposals and the references are scaled to the limits (`Fitting`),
    unless `scales` is false. Otherwise a proposal that violates a limit is not trained but kept in `rejected`, and a
    walk through its neighbours looks for a feasible choice. References are trained even if they violate a limit.

    `describe` returns the candidate of a choice, `values` the objectives of an outcome, all maximised; with several,
    candidates are promoted by their front (`Rung`). The best `score` wins. `times` are what jobs take by the measured
    speed. Given recorded trials as `history`, results of relaxations as `relaxed`, what jobs took (`Clock.taken`) and
    whether the reference that gives the features is `prepared`, it goes on as if it had handed out those jobs.

    With a `share` of a study it knows the candidates of the study's other searches, of which `learn` tells more, and
    neither proposes nor promotes them. It starts only what it has claimed, but always prepares the first reference.

    For a budget of `total_seconds`, both shares in the `settings` are estimates, until runs were measured (`Final`).
    """

    def __init__(
        self,
        space: Space[Any],
        sampler: Sampler,
        settings: PlannerSettings,
        *,
        seed: int = 0,
        total_seconds: float = math.inf,
        scales: bool = True,
        describe: Callable[[Choice], Candidate],
        values: Callable[[Outcome], tuple[float, ...]],
        score: Callable[[Outcome], float],
        history: Iterable[Trial] = (),
        relaxed: Iterable[JobResult] = (),
        times: JobTimes | None = None,
        taken: Taken | None = None,
        prepared: bool = False,
        share: Share | None = None,
    ) -> None:
        self.settings = settings
        self.clock, self.times = Clock(total_seconds, taken), times
        self._needs_features = space.shared_stage is not None
        self._final = Final(settings, self.clock, self._needs_features, score, times)
        self._share = share = share or Share()
        self.prepared = prepared or not self._needs_features
        """Whether proxies need not wait for the first reference."""
        self._features_due = not self.prepared
        self._space, self._seed = space, seed
        self._candidates = Candidates(describe, read_from(space))
        fitting = Fitting(space, self._candidates.constraints, scales)
        self._ladder = Ladder(settings, self._candidates.trials, values, score)
        stream = f"{seed} of search {share.number}" if share.number else seed
        self._proposals = Proposals(fitting, sampler, self._candidates, stream, self._ladder.best_first)
        self._proxies_in_flight: set[str] = set()
        # Each search seed trains relaxations of its own, and so does each search of a study.
        first = (seed + share.number) * settings.relaxations
        seeds = range(first, first + settings.relaxations)
        self._relaxing = RelaxationSchedule(seeds, settings.relax_steps, settings.relax_share)
        self._proxies_open = True
        self._jobs_handed_out = 0
        self._idle = False

        recorded = [(trial, kept) for trial in history if (kept := self._candidates.recall(trial)) is not None]
        self._references = [self._candidates.add_reference(label, c) for label, c in fitting.references().items()]
        self._settled = self._references[:] if len(self._references) <= FINAL_REFERENCES else []
        self._contenders = Contenders(settings, self._ladder, self._references)
        self._newcomers = Newcomers(
            settings, self._candidates, self._references, self._proposals.next, share.claim, FINAL_REFERENCES
        )
        # If all failed, they are tried again.
        results = [result for result in relaxed if result.job.seed in seeds]
        for result in results if any(result.message is None for result in results) else ():
            self._relaxing.take_in(result)
        for result in self._relaxing.end(0):
            self._settle(result)
        for was, trial in recorded:
            self._replay(was, trial)
        self._newcomers.waiting = [trial for trial in self.trials if trial.level == 0 and not trial.elsewhere]

    def next_job(self, spent: float) -> Job | None:
        """Hand out the next job, or `None` if there is none now; `spent` is the spent share of the budget, 0 to 1.

        Raises `RuntimeError` if all relaxations failed.
        """
        self.clock.set(spent)
        contenders = self._contenders
        starts_at = self._final.starts_at(contenders.most, contenders.all(), contenders.missing)
        planned = self.clock.by_plan(spent, self.settings.proxy_share, starts_at)
        for result in self._relaxing.end(planned):
            self._settle(result)
        job = self._prepare_job() if spent < 1 else None
        if job is None and spent < 1 and (self.prepared or self.clock.runs("prepare")):
            # Once there are all finalists, no new contenders join, however fast the final turns out to be.
            fits = self.clock.now + self._final.first_seconds <= starts_at and planned < self.settings.proxy_share
            self._proxies_open = fits and (self._proxies_open or contenders.missing > 0)
            if not (fits or contenders.finalists()):
                self._hurry()
            job = self._relax_job(planned) or self._proxy_job() or self._full_job() or self._late_job()
        self._idle = job is None
        if job is not None:
            self.clock.start(job)
            if job.task == "proxy":
                self._proxies_in_flight.update(candidate.key for candidate in job.candidates)
            elif self.settings.compares(job):
                self._final.start(self._candidates[job.candidates[0].key], job.seed)
        return job

    def tell(self, result: JobResult) -> None:
        """Take in the result of a job that is in flight; raises `ValueError` for any other."""
        job = result.job
        if self.clock.running.get(job.number, (None,))[0] != job:
            raise ValueError(f"job {job.number} is not in flight; tell the result of each job once")
        self._idle = False
        if job.task == "relax":
            self._relaxing.take_in(result)
        self.clock.take_in(result, is_run=self.settings.compares(job))
        for outcome in result.outcomes:
            trial = self._candidates[outcome.key]
            if job.task == "proxy":
                self._proxies_in_flight.discard(outcome.key)
                self._ladder.finish(trial, outcome, job.stop_step)
            elif self.settings.compares(job):
                trial.full.setdefault(job.seed, outcome)
                self._final.end(trial, job.seed)
            if job.task == "prepare":
                self.prepared = self.prepared or outcome.status == "ok"

    def has_time(self, job: Job, spent: float) -> bool:
        """Whether a job that failed can end in time if it is tried again at the `spent` share of the budget."""
        self.clock.set(spent)
        return spent < 1 and self.clock.now + self.clock.expected(job.kind) <= self.clock.total_seconds

    def learn(self, news: Iterable[Trial]) -> list[Trial]:
        """Take in what other searches of the study have done; returns the candidates that changed by that."""
        changed = []
        for told in news:
            if (trial := self._candidates.recall(told)) is None:
                continue
            if told.elsewhere:
                self._newcomers.leave(trial)
            before = len(trial.proxy), len(trial.full)
            self._replay(told, trial)
            if (len(trial.proxy), len(trial.full)) != before:
                changed.append(trial)
        return changed

    @property
    def done(self) -> bool:
        """Whether nothing is in flight and `next_job` found nothing more to do."""
        return self._idle and not self.clock.running

    @property
    def in_flight(self) -> tuple[Job, ...]:
        """The jobs whose results are pending."""
        return tuple(job for job, _ in self.clock.running.values())

    def trial(self, key: str) -> Trial:
        """The candidate with this key."""
        return self._candidates[key]

    @property
    def trials(self) -> Sequence[Trial]:
        """All candidates that are trained, elsewhere too, in the order in which they became known."""
        return self._candidates.trials

    @property
    def tried(self) -> int:
        """The number of those that are this search's own."""
        return self._candidates.own

    @property
    def rejected(self) -> Sequence[Trial]:
        """The proposals that violate a limit, in the same order."""
        return self._candidates.rejected

    @property
    def repeats(self) -> int:
        """How often a known choice was proposed or found."""
        return self._proposals.repeats

    @property
    def finished_at_rungs(self) -> tuple[int, ...]:
        """The number of candidates that finished each rung, including failed ones."""
        return self._ladder.finished

    def finalists(self) -> tuple[Candidate, ...]:
        """Return the best of the top rung, best first, without the references."""
        return tuple(trial.candidate for trial in self._contenders.finalists())

    def resumable(self, most_waiting: int | None = None) -> set[tuple[str, int]]:
        """Return the key and step of each checkpoint from which a candidate goes on or may be promoted.

        With `most_waiting`, only so many of a rung's candidates count, the best, as these are promoted first.
        """
        steps = self.settings.rungs
        waiting = self._ladder.resumable(most_waiting)
        waiting += [trial for trial in self._settled if 0 < trial.level < len(steps) and not trial.elsewhere]
        going_on = {
            (candidate.key, job.start_step)
            for job in self.in_flight
            if job.task == "proxy" and job.start_step
            for candidate in job.candidates
        }
        return going_on | {(trial.key, steps[trial.level - 1]) for trial in waiting}

    def _prepare_job(self) -> Job | None:
        """Hand out the first reference's training, for the features that all need; each search has its own."""
        if self.clock.running or not self._features_due:
            return None
        self._features_due = False
        reference, steps = self._references[0], self.settings.prepare_steps
        if steps is None:
            self._claims_run(reference, 0)
        return self._job("prepare", [reference], stop_step=steps or self.settings.full_steps)

    def _hurry(self) -> None:
        """Take finalists from lower rungs if there is no time to climb, untried ones if there is none for a rung."""
        contenders = self._contenders
        are_tried = contenders.are_tried or self._proxies_in_flight.difference(trial.key for trial in self._references)
        contenders.in_haste |= self._final.is_pressed
        if not are_tried and self._relaxing.is_over and math.isfinite(self.clock.total_seconds):
            contenders.in_haste, contenders.untried = True, self._newcomers.new(contenders.missing)

    def _relax_job(self, spent: float) -> Job | None:
        if (part := self._relaxing.next_part(spent)) is None:
            return None
        seed, start_step, stop_step = part
        return self._job("relax", [], start_step, stop_step=stop_step, seed=seed)

    def _settle(self, result: JobResult) -> None:
        """Add the choice that a relaxation found as a candidate, or a feasible one near it."""
        for found in result.found:
            choice = self._proposals.found_by_relaxation(self._space.parse(found), result.job.seed)
            if not self._candidates.is_feasible(choice):
                continue
            trial = self._candidates.add(self._candidates.describe(choice))
            if trial in self._settled:
                self._proposals.repeats += 1
            else:
                self._settled.append(trial)
                if trial.level == 0 and not trial.elsewhere:
                    self._newcomers.waiting.append(trial)

    def _proxy_job(self, next_group: Callable[[], list[Trial]] | None = None) -> Job | None:
        while self.prepared and (group := (next_group or self._next_group)()):
            level = group[0].level
            group = [trial for trial in group if trial.level == level][: self.settings.candidates_per_job]
            start: Callable[[Trial], object] = self._ladder.promote if level else self._newcomers.take
            for trial in group:
                start(trial)
            if group := [trial for trial in group if not trial.elsewhere]:
                steps = (0, *self.settings.rungs)
                return self._job("proxy", group, steps[level], stop_step=steps[level + 1], seed=PROXY_SEED + self._seed)
        return None

    def _next_group(self) -> list[Trial]:
        if self._contenders.in_haste:
            return []
        busy = self._proxies_in_flight
        group = [trial for trial in self._settled if not (trial.final or trial.elsewhere or trial.key in busy)]
        if not group and self._proxies_open and self._relaxing.is_over:
            group = self._ladder.promotable()
            ends = bool(group) and self.clock.fits(self.settings.rungs[group[0].level], self.clock.total_seconds)
            group = group if ends else self._newcomers.group()
        if not group and not (self._proxies_open and self._proxies_in_flight) and not self._final.is_pressed:
            # Beyond the halving, so that the final is full even if few were tried.
            new = len(busy.difference(trial.key for trial in self._references))
            group = self._ladder.waiting(self._contenders.missing - new)
        return group

    def _full_job(self) -> Job | None:
        """Hand out the next end-to-end run: one seed of all before the next seed of any.

        The references wait neither for the finalists to be found nor for the first reference's run, unless they race.
        """
        contenders, finding = self._contenders.all(), self._is_finding
        if finding:
            contenders = [trial for trial in self._settled if trial in self._references and not trial.failed]
        while run := self._final.next_run(contenders, None if finding else self._contenders.ranked(), self._references):
            if self._claims_run(*run):
                return self._job("full", [run[0]], stop_step=self.settings.full_steps, seed=run[1])
        return None

    def _late_job(self) -> Job | None:
        """Hand out new candidates to who would wait for a run, or for none, for a search that goes on later."""
        clock, first = self.clock, self.settings.rungs[0]
        in_time = clock.fits(first, clock.total_seconds, 1 + len(self._proxies_in_flight))
        if math.isinf(clock.total_seconds) or not in_time or not self._relaxing.is_over:
            return None
        after_seconds = self._final.comes_up_after(settled=not self._is_finding)
        waits = clock.fits(first, clock.now + after_seconds) or not self._final.has_time(after_seconds)
        return self._proxy_job(self._newcomers.group) if waits else None

    @property
    def _is_finding(self) -> bool:
        """Whether contenders are yet to be found, by jobs that are in flight or come first."""
        in_haste = self._contenders.in_haste
        waits = not in_haste and (self._proxies_open or self._final.waits_for(self.settings.rungs))
        ready = self._relaxing.is_over and (self.prepared or in_haste)
        return not ready or bool(waits and self._proxies_in_flight)

    def _claims_run(self, trial: Trial, seed: int) -> bool:
        is_own = self._share.claim(run_name(trial.key, seed))
        if not is_own:
            self._final.leave(trial, seed)
        return is_own

    def _job(self, task: Task, group: Sequence[Trial], start_step: int = 0, *, stop_step: int, seed: int = 0) -> Job:
        number = self._jobs_handed_out = self._jobs_handed_out + 1
        candidates = tuple(trial.candidate for trial in group)
        return Job(
            number=number, task=task, candidates=candidates, seed=seed, start_step=start_step, stop_step=stop_step
        )

    def _replay(self, recorded: Trial, trial: Trial) -> None:
        self._ladder.replay(recorded.proxy, trial)
        # A failed preparation is tried again.
        for seed, outcome in recorded.full.items():
            if outcome.status == "ok" or seed != 0 or trial is not self._references[0]:
                trial.full.setdefault(seed, outcome)
