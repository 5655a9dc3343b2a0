"""Decides what to do next: hands out jobs and is told their results. No Ray, clock or file in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from nasseg.planning.halving import Rung
from nasseg.planning.job import Candidate, Job, JobResult, Outcome, Task, Trial
from nasseg.planning.limits import descend, excess
from nasseg.planning.relaxation_schedule import Relaxing
from nasseg.planning.samplers.base import Sampler, Tried
from nasseg.run_folder import file_name
from nasseg.space import Choice, Space

LEAST_PROXY_SHARE = 0.3
"""Of the budget for trying candidates, where a long final would leave less; the final is then cut."""
SPARE_SHARE = 0.05
"""Of the budget, left for what a plan does not see."""
_TRIES_OF_SAMPLER = 20
_TRIES_AT_RANDOM = 100
_TRIES_OF_DESCENT = 200


class PlannerSettings(BaseModel):
    """What bounds a search.

    `rungs` are the steps at which proxy trainings are compared, `full_steps` is the length of a training end to end.
    `candidates` bounds the number of distinct ones, the references among them. After `proxy_share` of the budget no new
    candidate is begun and none promoted, but for the references and as many as the final needs.

    With `relaxations`, that many are trained for `relax_steps` each before the sampler is asked for candidates. After
    `relax_share` of the budget they are not trained any further: then what they have found by then counts.

    Where the budget is a time of `total_seconds` for `concurrency` jobs at once, both shares are only a plan: they
    shrink or grow with what trainings end to end turn out to take, so that the final fits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rungs: tuple[int, ...] = Field(min_length=1)
    full_steps: int = Field(gt=0)
    reduction: int = Field(default=3, ge=2)
    candidates: int | None = Field(default=None, gt=0)
    finalists: int = Field(default=3, ge=0)
    seeds: int = Field(default=2, ge=1)
    proxy_share: float = Field(default=0.6, ge=0, le=1)
    candidates_per_job: int = Field(default=1, ge=1)
    relaxations: int = Field(default=0, ge=0)
    relax_steps: int = Field(default=0, ge=0)
    relax_share: float = Field(default=1.0, ge=0, le=1)
    total_seconds: float = Field(default=math.inf, gt=0)
    concurrency: int = Field(default=1, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rungs[0] <= 0 or any(low >= high for low, high in zip(self.rungs, self.rungs[1:], strict=False)):
            raise ValueError(f"rungs are {self.rungs}; must be steps above 0 in rising order, like (200, 600, 1800)")
        return self


class _Known:
    """A candidate and what is known of it; `level` is the number of rungs that it finished."""

    def __init__(self, number: int, candidate: Candidate, choice: Choice) -> None:
        self.number = number
        self.candidate = candidate
        self.choice = choice
        self.proxy: dict[int, Outcome] = {}
        self.full: dict[int, Outcome] = {}
        self.level = 0
        self.values: tuple[float, ...] | None = None
        self.failed = False


class Planner:
    """Plans a search of `space`.

    The first reference is trained end to end, which gives the score to beat and the features that all share, if the
    space has a shared stage; only then do proxy trainings wait for it. Candidates are tried by proxy, the references
    first, with asynchronous successive halving: a promotion is a job from the candidate's checkpoint. In the end the
    best of the top rung and the references are trained end to end, with several seeds.

    A search by gradient first trains relaxations. The few choices that they find go to the top rung, as the references
    do; then the sampler goes on from there.

    What the sampler proposes beyond a limit is not trained but remembered as `rejected`; a walk through its neighbours
    looks for what keeps the limits. A reference beyond one is trained.

    `describe` gives the candidate of a choice, `values` what an outcome is worth by each objective, all to be
    maximised; with several, candidates are promoted by the front that they are on (`Rung`). A planner that is given the
    recorded trials as `history`, and the results of relaxations as `relaxed`, goes on as if it had handed out their
    jobs and been told the results.
    """

    def __init__(
        self,
        space: Space[Any],
        sampler: Sampler,
        settings: PlannerSettings,
        *,
        describe: Callable[[Any], Candidate],
        values: Callable[[Outcome], tuple[float, ...]],
        history: Iterable[Trial] = (),
        relaxed: Iterable[JobResult] = (),
    ) -> None:
        self.settings = settings
        self.repeats = 0
        self._space, self._sampler, self._describe, self._values = space, sampler, describe, values
        self._candidates: dict[Choice, Candidate] = {}
        self._known: list[_Known] = []
        self._by_key: dict[str, _Known] = {}
        self._tried: list[Tried] = []
        self._rejected: dict[str, Candidate] = {}
        self._rejections: list[Tried] = []
        self._rungs = [Rung(settings.reduction) for _ in settings.rungs]
        self._in_flight: dict[int, Job] = {}
        self._proxies_in_flight: set[str] = set()
        self._fulls_in_flight: set[tuple[str, int]] = set()
        # Searches with other seeds train other relaxations.
        seeds = range(settings.seed * settings.relaxations, (settings.seed + 1) * settings.relaxations)
        self._relaxing = Relaxing(seeds, settings.relax_steps, settings.relax_share)
        self._longest_full_seconds = 0.0
        self._proxies_open = True
        self._waiting_to_start: list[_Known] = []
        self._jobs_handed_out = 0
        self._exhausted = False
        self._idle = False

        trials: list[Trial] = []
        for trial in history:
            choice = space.canonical(space.parse(trial.candidate.choice))
            if trial.candidate.feasible or trial.candidate.label is not None:
                self._learn(choice, trial.candidate)
                trials.append(trial)
            else:
                self._reject(choice, trial.candidate)
        self._references = [self._reference(label, choice) for label, choice in space.references().items()]
        self._settled = list(self._references)
        # Where all failed, they are tried again.
        results = list(relaxed)
        for result in results if any(result.message is None for result in results) else ():
            self._relaxing.take_in(result)
        for result in self._relaxing.end(0):
            self._settle(result)
        for trial in trials:
            self._replay(trial)
        self._waiting_to_start = [known for known in self._known if known.level == 0]

    def next_job(self, spent: float) -> Job | None:
        """The next job, or `None` while there is none; `spent` is the share of the budget that is spent, 0 to 1.

        Raises `RuntimeError` where no relaxation found anything.
        """
        planned = self._by_plan(spent)
        for result in self._relaxing.end(planned):
            self._settle(result)
        job = self._prepare_job() if spent < 1 else None
        if job is None and spent < 1:
            if self._prepared:
                # Once the final has begun, it has no new contenders, however fast it then is.
                self._proxies_open = self._proxies_open and planned < self.settings.proxy_share
                job = self._relax_job(planned) or self._proxy_job() or self._full_job()
            elif any(job.task == "prepare" for job in self.in_flight):
                job = self._relax_job(planned) or self._full_job()
        self._idle = job is None
        if job is not None:
            self._in_flight[job.number] = job
            if job.task == "proxy":
                self._proxies_in_flight.update(candidate.key for candidate in job.candidates)
            elif job.task != "relax":
                self._fulls_in_flight.add((job.candidates[0].key, job.seed))
        return job

    def tell(self, result: JobResult) -> None:
        """Take in the result of a job that is in flight; raises `ValueError` for any other."""
        job = result.job
        if self._in_flight.get(job.number) != job:
            raise ValueError(f"job {job.number} is not in flight; tell the result of each job once")
        del self._in_flight[job.number]
        self._idle = False
        if job.task == "relax":
            self._relaxing.take_in(result)
        for outcome in result.outcomes:
            known = self._by_key[outcome.key]
            if job.task == "proxy":
                self._proxies_in_flight.discard(outcome.key)
                self._finish_rung(known, outcome, job.stop_step)
            else:
                self._fulls_in_flight.discard((outcome.key, job.seed))
                known.full[job.seed] = outcome
                if outcome.status == "ok" and (job.task == "full" or self._space.shared_stage is None):
                    self._longest_full_seconds = max(self._longest_full_seconds, result.seconds)

    @property
    def done(self) -> bool:
        """Whether nothing is in flight and `next_job` found nothing more to do."""
        return self._idle and not self._in_flight

    @property
    def in_flight(self) -> tuple[Job, ...]:
        """The jobs whose results are not in."""
        return tuple(self._in_flight.values())

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All candidates in the order in which they were proposed, with their outcomes."""
        return tuple(Trial(known.candidate, dict(known.proxy), dict(known.full)) for known in self._known)

    @property
    def rejected(self) -> tuple[Candidate, ...]:
        """What the sampler proposed but breaks a limit, in that order."""
        return tuple(self._rejected.values())

    @property
    def finished_at_rungs(self) -> tuple[int, ...]:
        """How many candidates finished each rung, failed ones included."""
        return tuple(len(rung) for rung in self._rungs)

    def finalists(self) -> tuple[Candidate, ...]:
        """The best of the top rung, best first, without the references."""
        return tuple(known.candidate for known in self._finalists())

    @property
    def _prepared(self) -> bool:
        if self._space.shared_stage is None:
            return True
        outcome = self._references[0].full.get(0)
        return outcome is not None and outcome.status == "ok"

    def _by_plan(self, spent: float) -> float:
        """What the plan would call this share of the budget, had it known how long trainings end to end take."""
        settings = self.settings
        if not self._longest_full_seconds or math.isinf(settings.total_seconds):
            return spent
        contenders = settings.finalists + len(self._references)
        trained = sum(len(known.full) for known in self._known)
        rounds = math.ceil((contenders * settings.seeds - trained) / settings.concurrency)
        final = rounds * self._longest_full_seconds / settings.total_seconds
        return spent * settings.proxy_share / max(LEAST_PROXY_SHARE, 1 - SPARE_SHARE - final)

    def _prepare_job(self) -> Job | None:
        reference = self._references[0]
        if 0 in reference.full or self._in_flight:
            return None
        return self._job("prepare", [reference], stop_step=self.settings.full_steps)

    def _relax_job(self, spent: float) -> Job | None:
        part = self._relaxing.next_part(spent)
        if part is None:
            return None
        seed, start_step, stop_step = part
        return self._job("relax", [], start_step, stop_step=stop_step, seed=seed)

    def _settle(self, result: JobResult) -> None:
        """Make what a relaxation found a candidate, or what is near it and keeps the limits."""
        for found in result.found:
            choice = self._space.canonical(self._space.parse(found))
            if not self._is_feasible(choice):
                rng = Random(f"{self.settings.seed}/relaxation {result.job.seed}")
                choice = self._toward_limits(choice, rng, done=self._is_feasible)
            if not self._is_feasible(choice):
                continue
            known = self._learn(choice, self._candidate(choice))
            if known in self._settled:
                self.repeats += 1
            else:
                self._settled.append(known)
                if known.level == 0:
                    self._waiting_to_start.append(known)

    def _proxy_job(self) -> Job | None:
        group = self._settled_to_train()
        if not group and self._proxies_open and self._relaxing.is_over:
            group = self._promotable() or self._to_start()
        if not group and not self._proxies_in_flight:
            group = self._missing_finalists()
        if not group:
            return None
        level = group[0].level
        group = [known for known in group if known.level == level][: self.settings.candidates_per_job]
        for known in group:
            if level == 0:
                self._waiting_to_start.remove(known)
            else:
                self._rungs[level - 1].promote(known.number)
        steps = (0, *self.settings.rungs)
        return self._job("proxy", group, steps[level], stop_step=steps[level + 1], seed=self.settings.seed)

    def _full_job(self) -> Job | None:
        """The next training end to end: one seed of all before the next seed of any.

        The references need not wait for the trainings by which finalists are found, nor for the one of them that is
        trained first.
        """
        references = [known for known in self._references if not known.failed]
        finding = self._proxies_in_flight or not self._relaxing.is_over
        contenders = references if finding else [*self._finalists(), *references]
        for seed in range(self.settings.seeds):
            for known in contenders:
                if seed not in known.full and (known.candidate.key, seed) not in self._fulls_in_flight:
                    return self._job("full", [known], stop_step=self.settings.full_steps, seed=seed)
        return None

    def _job(self, task: Task, group: Sequence[_Known], start_step: int = 0, *, stop_step: int, seed: int = 0) -> Job:
        self._jobs_handed_out += 1
        return Job(
            number=self._jobs_handed_out,
            task=task,
            candidates=tuple(known.candidate for known in group),
            seed=seed,
            start_step=start_step,
            stop_step=stop_step,
        )

    def _settled_to_train(self) -> list[_Known]:
        """Of those that are trained up to the top rung in any case, the references first, those that are not there."""
        top = len(self._rungs)
        return [
            known
            for known in self._settled
            if known.level < top and not known.failed and known.candidate.key not in self._proxies_in_flight
        ]

    def _promotable(self) -> list[_Known]:
        for rung in reversed(self._rungs[:-1]):
            if numbers := rung.promotable(self.settings.candidates_per_job):
                return [self._known[number] for number in numbers]
        return []

    def _to_start(self) -> list[_Known]:
        """Up to a job's worth of candidates that an interruption left without a result, or that are new."""
        limit = self.settings.candidates
        while len(self._waiting_to_start) < self.settings.candidates_per_job:
            choice = self._new_choice() if limit is None or len(self._known) < limit else None
            if choice is None:
                break
            self._waiting_to_start.append(self._learn(choice, self._candidate(choice)))
        return self._waiting_to_start

    def _missing_finalists(self) -> list[_Known]:
        """Those to promote beyond the halving, so that the final has its finalists even where few were tried."""
        missing = self.settings.finalists - len(self._finalists())
        for rung in reversed(self._rungs[:-1]):
            waiting = [self._known[number] for number in rung.waiting()]
            if waiting and missing > 0:
                return waiting[:missing]
        return []

    def _finalists(self) -> list[_Known]:
        best = [self._known[number] for number in self._rungs[-1].ranking()]
        return [known for known in best if known not in self._references][: self.settings.finalists]

    def _new_choice(self) -> Choice | None:
        """A choice that is not known, or `None` where the space has no other.

        Each try has a generator of its own, derived from the number of known candidates, so that an interruption does
        not change what is proposed.
        """
        if self._exhausted:
            return None
        for attempt in range(_TRIES_OF_SAMPLER + _TRIES_AT_RANDOM):
            rng = Random(f"{self.settings.seed}/{len(self._known)}/{attempt}")
            if attempt < _TRIES_OF_SAMPLER:
                choice = self._proposal(rng)
            else:
                choice = self._space.canonical(self._space.sample(rng))
            if self._is_open(choice):
                return choice
            self.repeats += 1
        near = (self._space.canonical(other) for known in self._known for other in self._space.neighbours(known.choice))
        found = next(filter(self._is_open, near), None)
        self._exhausted = found is None
        return found

    def _proposal(self, rng: Random) -> Choice:
        """What the sampler proposes, or what is near it and keeps the limits, where such a choice is found."""
        choice: Choice = self._space.canonical(self._sampler.propose([*self._rejections, *self._tried], rng))
        if self._is_feasible(choice):
            return choice
        self._reject(choice, self._candidate(choice))
        return self._toward_limits(choice, rng, done=self._is_open)

    def _toward_limits(self, choice: Choice, rng: Random, done: Callable[[Choice], bool]) -> Choice:
        def beyond(near: Choice) -> float:
            return excess(self._candidate(near).constraints)

        found: Choice = descend(self._space, choice, beyond, rng, _TRIES_OF_DESCENT, done)
        return found

    def _is_open(self, choice: Choice) -> bool:
        """Whether it may be tried: it keeps the limits and is not known."""
        return self._is_feasible(choice) and self._candidate(choice).key not in self._by_key

    def _is_feasible(self, choice: Choice) -> bool:
        return self._candidate(choice).feasible

    def _candidate(self, choice: Choice) -> Candidate:
        if choice not in self._candidates:
            self._candidates[choice] = self._describe(choice)
        return self._candidates[choice]

    def _reference(self, label: str, choice: Choice) -> _Known:
        choice = self._space.canonical(choice)
        return self._learn(choice, self._candidate(choice).model_copy(update={"label": file_name(label)}))

    def _learn(self, choice: Choice, candidate: Candidate) -> _Known:
        if candidate.key not in self._by_key:
            known = _Known(len(self._known), candidate, choice)
            self._by_key[candidate.key] = known
            self._known.append(known)
            self._tried.append(self._as_tried(known))
        return self._by_key[candidate.key]

    def _reject(self, choice: Choice, candidate: Candidate) -> None:
        if candidate.key not in self._rejected:
            self._rejected[candidate.key] = candidate
            constraints = tuple(candidate.constraints.values())
            self._rejections.append(Tried(choice, rung=0, values=None, final=True, constraints=constraints))

    def _as_tried(self, known: _Known) -> Tried:
        final = known.failed or known.level == len(self._rungs)
        constraints = tuple(known.candidate.constraints.values())
        return Tried(known.choice, known.level, known.values, final, constraints)

    def _finish_rung(self, known: _Known, outcome: Outcome, step: int) -> None:
        known.proxy[step] = outcome
        known.level = self.settings.rungs.index(step) + 1
        known.failed = outcome.status != "ok"
        known.values = None if known.failed else self._values(outcome)
        self._rungs[known.level - 1].finish(known.number, known.values)
        self._tried[known.number] = self._as_tried(known)

    def _replay(self, trial: Trial) -> None:
        known = self._by_key[trial.candidate.key]
        for step, outcome in sorted(trial.proxy.items()):
            if step not in self.settings.rungs:
                raise ValueError(f"rungs are {self.settings.rungs}; must hold {step}, at which a trial is recorded")
            if known.level:
                self._rungs[known.level - 1].promote(known.number)
            self._finish_rung(known, outcome, step)
        # A preparation that failed is tried again.
        known.full = {
            seed: outcome
            for seed, outcome in trial.full.items()
            if outcome.status == "ok" or seed != 0 or known is not self._references[0]
        }
