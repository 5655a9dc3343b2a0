"""The record of a search: an Optuna study, in a journal file of the run folder or in any database by URL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import NonNegativeFloat, TypeAdapter

from nasseg.cost import Latency
from nasseg.experiment.claims import Place
from nasseg.experiment.journal import FROM_A_COPY, Journal
from nasseg.experiment.outages import answering
from nasseg.experiment.recorded import FULL, STEP, read_full, read_trial, with_prefix
from nasseg.experiment.shared import create_study, open_database
from nasseg.foreign import damaged
from nasseg.planning.candidates import Trial, run_name
from nasseg.planning.final.clock import Taken
from nasseg.planning.job import Candidate, Costs, Job, JobResult, Kind, Outcome
from nasseg.planning.objective import Objective
from nasseg.planning.samplers.optuna import suggestions
from nasseg.space import Space

optuna.logging.set_verbosity(optuna.logging.ERROR)

T = TypeVar("T")

LOCK_GRACE_SECONDS = 5
_RELAX = "relax "
_TAKEN = "seconds of jobs"
_BEST_AT = "best at "
_LATENCY = "latency "
_SECONDS = TypeAdapter(NonNegativeFloat)
_SECONDS_BY_KIND = TypeAdapter(dict[str, list[NonNegativeFloat]])


def _whole(read: Callable[[Record], T]) -> Callable[[Record], T]:
    """Let a method raise `DamagedError`, whatever is wrong with the record, which may be someone else's.

    A database that does not answer is another matter (`answering`).
    """

    @wraps(read)
    def whole(self: Record) -> T:
        with answering(), damaged(self.where, FROM_A_COPY):
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

    In a database several searches may write one study. Each writes the trials of the candidates that it has claimed,
    with its identifier as the attribute `search`, and the end-to-end runs that it has claimed; `news` are the others'.
    History and latencies are each search's own: those of all but the study's first begin with their identifier.

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

        `at_once` joins the writes of a block into one. Raises `ValueError` if the study belongs to other searches.
        """
        self.where = where
        self._at_once = at_once
        self._storage, self._space, self._top_step, self._objective = storage, space, top_step, objective
        try:
            self._study = optuna.load_study(storage=storage, study_name=name)
        except KeyError:
            create_study(storage, name, objective, search)
            self._study = optuna.load_study(storage=storage, study_name=name)
        self.place = Place.of(storage, self._study, search)
        """This search's place among those of the study."""
        self._own = self.place.prefix
        self._study_id = storage.get_study_id_from_name(name)
        self.place.skip()
        self._unread: dict[str, int | None] = {}
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

    @answering()
    def start(self, job: Job) -> None:
        """Note the candidates of a job that starts."""
        started = {c.key: self._create(c, TrialState.RUNNING) for c in job.candidates if self._is_new(c)}
        self.place.note(started)

    @answering()
    def reject(self, candidates: Iterable[Candidate]) -> None:
        """Note candidates that are not trained because they violate a limit."""
        self.place.note({c.key: self._create(c, TrialState.PRUNED) for c in candidates if self._is_new(c)})

    @answering()
    def add(self, result: JobResult, taken: Taken | None = None) -> None:
        """Write the outcomes of a job, and what the search's jobs took, in one go."""
        job = result.job
        self.start(job)
        for candidate in job.candidates if job.task == "proxy" else ():
            if self._recorded(candidate.key).state == TrialState.PRUNED:
                self._reopen(candidate.key)
        if job.task == "proxy":
            self.place.note({candidate.key: self._trial_ids[candidate.key] for candidate in job.candidates})
        else:
            self.place.note({run_name(candidate.key, job.seed): None for candidate in job.candidates})
        with self._at_once():
            if job.task == "relax":
                self._study.set_user_attr(f"{_RELAX}{job.seed}", result.model_dump(mode="json"))
            for candidate, outcome in zip(job.candidates, result.outcomes, strict=True):
                if job.task == "proxy":
                    self._add_proxy(candidate.key, outcome, job.stop_step)
                else:
                    self._add_full(run_name(candidate.key, job.seed), outcome)
            if taken is not None:
                self.note_taken(taken)

    @answering()
    def note_taken(self, taken: Taken) -> None:
        """Write what the search's jobs took."""
        by_kind = {str(kind): list(seconds) for kind, seconds in taken.items()}
        self._study.set_user_attr(f"{self._own}{_TAKEN}", by_kind)

    @answering()
    def close(self) -> None:
        """Declare that no candidate will be promoted any more. A later result reopens its candidate."""
        with self._at_once():
            for trial in self._trials():
                if trial.state == TrialState.RUNNING and self.place.owns(trial):
                    self._storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED)

    @_whole
    def load(self) -> list[Trial]:
        """Return all candidates with their outcomes, in the order they were noted."""
        full = read_full(self._study.user_attrs)
        read = (self._read(recorded, full) for recorded in self._trials())
        return list({trial.key: trial for trial in read}.values())

    @_whole
    def news(self) -> list[Trial]:
        """Return the candidates that other searches have written, or trained end to end, since the last call."""
        changed = self._unread | self.place.changes()
        full = read_full(self._study.user_attrs) if any(trial_id is None for trial_id in changed.values()) else {}
        self._trial_ids |= {key: trial_id for key, trial_id in changed.items() if trial_id is not None}
        known = {key: name for name in changed if (key := name.split(" ")[0]) in self._trial_ids}
        self._unread = {name: None for name in changed if name.split(" ")[0] not in self._trial_ids}
        return [self._read(self._recorded(key), full) for key in known]

    @_whole
    def relaxations(self) -> list[JobResult]:
        """Return the results of all `relax` jobs, in the order they came in."""
        return list(map(JobResult.model_validate, with_prefix(_RELAX, self._study.user_attrs).values()))

    @property
    @_whole
    def taken(self) -> Taken:
        """The seconds that the latest jobs of each kind took."""
        taken = _SECONDS_BY_KIND.validate_python(self._study.user_attrs.get(f"{self._own}{_TAKEN}", {}))
        return {int(kind) if kind.isdigit() else cast("Kind", kind): seconds for kind, seconds in taken.items()}

    @property
    @_whole
    def history(self) -> list[tuple[float, float]]:
        """The scores of the best candidates, each with the seconds spent until it was found."""
        best = with_prefix(f"{self._own}{_BEST_AT}", self._study.user_attrs)
        return sorted((_SECONDS.validate_python(seconds), float(score)) for seconds, score in best.items())

    @answering()
    def note_best(self, seconds: float, score: float) -> None:
        """Note the score of a new best candidate."""
        self._study.set_user_attr(f"{self._own}{_BEST_AT}{seconds:.3f}", score)

    @property
    @_whole
    def latencies(self) -> dict[str, Latency]:
        """The measured latencies by key."""
        latencies = with_prefix(f"{self._own}{_LATENCY}", self._study.user_attrs)
        return {key: Latency.model_validate(value) for key, value in latencies.items()}

    @answering()
    def add_latencies(self, latencies: Mapping[str, Latency]) -> None:
        """Write measured latencies, by key."""
        for key, latency in latencies.items():
            self._study.set_user_attr(f"{self._own}{_LATENCY}{key}", latency.model_dump(mode="json"))

    def _trials(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._study_id, deepcopy=False)

    def _read(self, recorded: FrozenTrial, full: Mapping[str, dict[int, Outcome]]) -> Trial:
        return read_trial(recorded, self._space, full, elsewhere=not self.place.owns(recorded))

    def _is_new(self, candidate: Candidate) -> bool:
        """Whether nobody has a trial of this candidate; if so, it is this search's from now on."""
        return candidate.key not in self._trial_ids and self.place.claim(candidate.key)

    def _create(self, candidate: Candidate, state: TrialState) -> int:
        user_attrs = candidate.model_dump(mode="json", exclude_none=True, exclude={"constraints"})
        self._write_new(candidate.key, state, user_attrs | self.place.mark, candidate.constraints, {})
        # In memory, the trial that was read back need not have a copy of its own.
        self._recorded(candidate.key).user_attrs["choice"] = candidate.choice
        return self._trial_ids[candidate.key]

    def _reopen(self, key: str) -> None:
        """Continue a pruned trial under a new number, as Optuna does not change finished ones."""
        old = self._recorded(key)
        attributes = {name: _as_json(value) for name, value in old.user_attrs.items()}
        self._write_new(key, TrialState.RUNNING, attributes, old.constraints, old.intermediate_values)

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

    def _add_full(self, run: str, outcome: Outcome) -> None:
        """Write the outcome of an end-to-end run; one that each search has for itself is written once."""
        name = f"{FULL}{run}"
        if self.place.claim(run) or name not in self._study.user_attrs:
            self._study.set_user_attr(name, outcome.model_dump(mode="json"))

    def _add_proxy(self, key: str, outcome: Outcome, step: int) -> None:
        trial_id, known = self._trial_ids[key], self._recorded(key).user_attrs
        values = self._objective.metric_values(outcome) if outcome.status == "ok" else ()
        for name, cost in outcome.model_dump(include=set(Costs.model_fields), exclude_none=True).items():
            if known.get(name) != cost:
                self._storage.set_trial_user_attr(trial_id, name, cost)
        if len(values) == 1:
            self._storage.set_trial_intermediate_value(trial_id, step, values[0])
        self._storage.set_trial_user_attr(trial_id, f"{STEP}{step}", outcome.model_dump(mode="json"))
        self._recorded(key).user_attrs[f"{STEP}{step}"] = outcome  # in memory once, as the choice
        if outcome.status != "ok":
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        elif step == self._top_step:
            self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, values)


def _as_json(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, Outcome) else value
