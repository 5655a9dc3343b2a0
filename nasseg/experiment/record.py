"""The record of a search: an Optuna study, in a journal file of the run folder or in any database by URL."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import NonNegativeFloat, TypeAdapter, ValidationError

from nasseg.cost import Latency
from nasseg.errors import one_line
from nasseg.experiment.journal import FROM_A_COPY, Journal
from nasseg.experiment.shared import open_database
from nasseg.foreign import DamagedError, damaged
from nasseg.planning.candidates import Trial
from nasseg.planning.final import Taken
from nasseg.planning.job import Candidate, Costs, Job, JobResult, Outcome, Task
from nasseg.planning.objective import Objective
from nasseg.planning.samplers.optuna import suggestions
from nasseg.space import Space

optuna.logging.set_verbosity(optuna.logging.ERROR)

T = TypeVar("T")

LOCK_GRACE_SECONDS = 5
_STEP = "step "
_FULL = "full "
_RELAX = "relax "
_TAKEN = "seconds of jobs"
_BEST_AT = "best at "
_LATENCY = "latency "
_SEARCH = "search"
_SECONDS = TypeAdapter(NonNegativeFloat)
_SECONDS_BY_KIND = TypeAdapter(dict[str, list[NonNegativeFloat]])


def _whole(read: Callable[[Record], T]) -> Callable[[Record], T]:
    """Let a method raise `DamagedError`, whatever is wrong with the record, which may be someone else's."""

    @wraps(read)
    def whole(self: Record) -> T:
        with damaged(self.where, FROM_A_COPY):
            return read(self)

    return whole


class Record:
    """The candidates of a search and their outcomes, one Optuna trial per candidate, readable by optuna-dashboard.

    A trial has the space's own parameters, its constraints, the user attributes `key`, `choice`, `label`, its costs
    and, for each rung, `step STEP` with the outcome. Its score is the intermediate value there if the study has one
    objective (Optuna has none for several). A trial is RUNNING while it may yet be promoted, PRUNED at the rung it
    reached once `close` rules that out, or at once if it violates a limit and is not trained, COMPLETE with the
    objective's `metrics` once it finished the rung at `top_step`, and FAIL once a run failed.

    Optuna does not change finished trials, so the study's user attributes hold end-to-end outcomes, `full KEY SEED`,
    results of relaxations, `relax SEED`, the history of the best score, and the measured latencies.

    A result is on disk when `add` returns: a search killed at any moment loses only the running jobs. Opening and
    reading an existing record changes nothing, so it can be read while a search writes it.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        space: Space[Any],
        top_step: int,
        objective: Objective,
        at_once: Callable[[], AbstractContextManager[None]] = nullcontext,
        search: str | None = None,
        where: object = "the search's record",
    ) -> None:
        """Open the study `name` in `storage`, or create it there for the search with this identifier.

        `at_once` joins the writes of a block into one. Raises `ValueError` if the study belongs to another search.
        """
        self.where = where
        self._at_once = at_once
        self._storage, self._space, self._top_step, self._objective = storage, space, top_step, objective
        try:
            self._study = optuna.load_study(storage=storage, study_name=name)
            if self._study.user_attrs.get(_SEARCH) != search:
                raise ValueError(f"study {name!r} belongs to another search; name another one with --study, or none")
        except KeyError:
            names, directions = zip(*objective.metrics.items(), strict=True)
            self._study = optuna.create_study(storage=storage, study_name=name, directions=directions)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._study.set_metric_names(list(names))
            if search is not None:
                self._study.set_user_attr(_SEARCH, search)
        self._study_id = storage.get_study_id_from_name(name)
        with damaged(where, FROM_A_COPY):
            self._trial_ids = {trial.user_attrs["key"]: trial._trial_id for trial in self._trials()}

    @classmethod
    def open_journal(cls, path: Path, space: Space[Any], top_step: int, objective: Objective) -> Record:
        """Open the record in the journal file at `path`, created if missing.

        Only one process may write to a journal. The first write clears what a killed process left behind: an unfinished
        last line is cut off, a lock is broken after `LOCK_GRACE_SECONDS`.
        """
        lock = JournalFileSymlinkLock(str(path), grace_period=LOCK_GRACE_SECONDS)
        journal = Journal(str(path), lock_obj=lock)
        with damaged(path, FROM_A_COPY):
            storage = JournalStorage(journal)
        return cls(storage, "nasseg", space, top_step, objective, journal.at_once, where=path)

    @classmethod
    def open_url(
        cls, url: str, name: str, space: Space[Any], top_step: int, objective: Objective, search: str | None = None
    ) -> Record:
        """Open the record in the study `name` of the database at `url`, such as `sqlite:///search.db`.

        Raises `ValueError` if the study belongs to another `search`, or if the database cannot be opened; the message
        leaves out the URL, with its password.
        """
        return cls(open_database(url), name, space, top_step, objective, search=search)

    def start(self, job: Job) -> None:
        """Note the candidates of a job that starts."""
        for candidate in job.candidates:
            if candidate.key not in self._trial_ids:
                self._create(candidate, TrialState.RUNNING)

    def reject(self, candidates: Iterable[Candidate]) -> None:
        """Note candidates that are not trained because they violate a limit."""
        for candidate in candidates:
            if candidate.key not in self._trial_ids:
                self._create(candidate, TrialState.PRUNED)

    def add(self, result: JobResult, taken: Taken | None = None) -> None:
        """Write the outcomes of a job, and what the search's jobs took, in one go."""
        job = result.job
        self.start(job)
        for candidate in job.candidates if job.task == "proxy" else ():
            if self._recorded(candidate.key).state == TrialState.PRUNED:
                self._reopen(candidate.key)
        with self._at_once():
            if job.task == "relax":
                self._study.set_user_attr(f"{_RELAX}{job.seed}", result.model_dump(mode="json"))
            for candidate, outcome in zip(job.candidates, result.outcomes, strict=True):
                if job.task == "proxy":
                    self._add_proxy(candidate.key, outcome, job.stop_step)
                else:
                    name = f"{_FULL}{candidate.key} {job.seed}"
                    self._study.set_user_attr(name, outcome.model_dump(mode="json"))
            if taken is not None:
                self._study.set_user_attr(_TAKEN, {str(kind): list(seconds) for kind, seconds in taken.items()})

    def close(self) -> None:
        """Declare that no candidate will be promoted any more. A later result reopens its candidate."""
        with self._at_once():
            for trial in self._trials():
                if trial.state == TrialState.RUNNING:
                    self._storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED)

    @_whole
    def load(self) -> list[Trial]:
        """Return all candidates with their outcomes, in the order they were noted."""
        full: dict[str, dict[int, Outcome]] = {}
        for name, value in _with_prefix(_FULL, self._study.user_attrs).items():
            key, seed = name.split(" ")
            full.setdefault(key, {})[int(seed)] = Outcome.model_validate(value)
        trials: dict[str, Trial] = {}
        for recorded in self._trials():
            candidate = _candidate(recorded)
            steps = _with_prefix(_STEP, recorded.user_attrs)
            proxy = {int(step): Outcome.model_validate(value) for step, value in steps.items()}
            choice = self._space.canonical(self._space.parse(candidate.choice))
            trials[candidate.key] = Trial(
                candidate, choice, proxy=dict(sorted(proxy.items())), full=full.get(candidate.key, {})
            )
        return list(trials.values())

    @_whole
    def relaxations(self) -> list[JobResult]:
        """Return the results of all `relax` jobs, in the order they came in."""
        return list(map(JobResult.model_validate, _with_prefix(_RELAX, self._study.user_attrs).values()))

    @property
    @_whole
    def taken(self) -> Taken:
        """The seconds that the latest jobs of each kind took."""
        taken = _SECONDS_BY_KIND.validate_python(self._study.user_attrs.get(_TAKEN, {}))
        return {int(kind) if kind.isdigit() else cast("Task", kind): seconds for kind, seconds in taken.items()}

    @property
    @_whole
    def history(self) -> list[tuple[float, float]]:
        """The scores of the best candidates, each with the seconds spent until it was found."""
        best = _with_prefix(_BEST_AT, self._study.user_attrs)
        return sorted((_SECONDS.validate_python(seconds), float(score)) for seconds, score in best.items())

    def note_best(self, seconds: float, score: float) -> None:
        """Note the score of a new best candidate."""
        self._study.set_user_attr(f"{_BEST_AT}{seconds:.3f}", score)

    @property
    @_whole
    def latencies(self) -> dict[str, Latency]:
        """The measured latencies by key."""
        latencies = _with_prefix(_LATENCY, self._study.user_attrs)
        return {key: Latency.model_validate(value) for key, value in latencies.items()}

    def add_latencies(self, latencies: Mapping[str, Latency]) -> None:
        """Write measured latencies, by key."""
        for key, latency in latencies.items():
            self._study.set_user_attr(f"{_LATENCY}{key}", latency.model_dump(mode="json"))

    def _trials(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._study_id, deepcopy=False)

    def _create(self, candidate: Candidate, state: TrialState) -> None:
        user_attrs = candidate.model_dump(mode="json", exclude_none=True, exclude={"constraints"})
        self._write_new(candidate.key, state, user_attrs, candidate.constraints, {})
        # In memory, the trial that was read back need not have a copy of its own.
        self._recorded(candidate.key).user_attrs["choice"] = candidate.choice

    def _reopen(self, key: str) -> None:
        """Continue a pruned trial under a new number, as Optuna does not change finished ones."""
        old = self._recorded(key)
        self._write_new(key, TrialState.RUNNING, old.user_attrs, old.constraints, old.intermediate_values)

    def _write_new(
        self,
        key: str,
        state: TrialState,
        user_attrs: dict[str, Any],
        constraints: dict[str, float],
        intermediate_values: dict[int, float],
    ) -> None:
        """Write a trial at once, so that it is never recorded with half of its parameters."""
        params, distributions = suggestions(self._space, self._space.parse(user_attrs["choice"]))
        trial = create_trial(
            state=state,
            params=params,
            distributions=distributions,
            user_attrs=user_attrs,
            intermediate_values=intermediate_values,
            constraints=constraints,
        )
        self._trial_ids[key] = self._storage.create_new_trial(self._study_id, template_trial=trial)

    def _recorded(self, key: str) -> FrozenTrial:
        return self._storage.get_trial(self._trial_ids[key])

    def _add_proxy(self, key: str, outcome: Outcome, step: int) -> None:
        trial_id, known = self._trial_ids[key], self._recorded(key).user_attrs
        values = self._objective.metric_values(outcome) if outcome.status == "ok" else ()
        for name, cost in outcome.model_dump(include=set(Costs.model_fields), exclude_none=True).items():
            if known.get(name) != cost:
                self._storage.set_trial_user_attr(trial_id, name, cost)
        if len(values) == 1:
            self._storage.set_trial_intermediate_value(trial_id, step, values[0])
        self._storage.set_trial_user_attr(trial_id, f"{_STEP}{step}", outcome.model_dump(mode="json"))
        if outcome.status != "ok":
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        elif step == self._top_step:
            self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, values)


def _with_prefix(prefix: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Select the attributes whose names begin with `prefix`, by the rest of the name."""
    return {name.removeprefix(prefix): value for name, value in attributes.items() if name.startswith(prefix)}


def _candidate(recorded: FrozenTrial) -> Candidate:
    """Read the candidate of a trial; raises `ValueError` if there is none, or if its names cannot name files."""
    named = {name: recorded.user_attrs.get(name) for name in ("key", "choice", "label")}
    try:
        return Candidate.model_validate({**named, "constraints": recorded.constraints})
    except ValidationError as error:
        raise DamagedError(one_line(error, f"trial {recorded.number} of the search's record")) from None
