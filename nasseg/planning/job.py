"""Jobs, which the planner hands out and a worker runs, and their results. Pure data that crosses processes."""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from nasseg.run_folder import FileName

Task = Literal["prepare", "relax", "proxy", "full"]
Status = Literal["ok", "nonfinite", "unfit", "failed"]
"""How a run of a candidate ended: with a score; with a loss that is not finite; not at all, as it does not fit the
stored features or the device's memory; or not at all, for whatever reason, as its job failed."""
Kind = Task | Literal["store"] | int
"""Of work that takes about as long each time: a job's task or the rung that it reaches, or storing features."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Candidate(_Data):
    """One point of a space that a search tries; `key` and `label` name its files."""

    key: FileName = Field(description="hash of its architecture")
    choice: dict[str, object] = Field(description="the space's choice, as JSON")
    label: FileName | None = Field(default=None, description="name of a handcrafted reference")
    constraints: dict[str, float] = Field(default={}, description="by limit; those above 0 are violated, as in Optuna")

    @property
    def feasible(self) -> bool:
        """Whether it keeps all limits."""
        return all(value <= 0 for value in self.constraints.values())


class Job(_Data):
    """Train `candidates` from `start_step` to `stop_step`.

    - `relax`: train the space's relaxation with `seed` and decode it; has no candidates, but finds choices;
    - `prepare`: train the first handcrafted reference end to end with seed 0, for the features that all share;
    - `proxy`: train the candidates on those features, which a machine's first such jobs store, from their checkpoints
      if `start_step` is above 0;
    - `full`: train one candidate end to end with `seed`.
    """

    number: int
    task: Task
    candidates: tuple[Candidate, ...]
    seed: int
    start_step: int = Field(ge=0)
    stop_step: int

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stop_step <= self.start_step:
            raise ValueError(f"stop_step is {self.stop_step}; must be above start_step, which is {self.start_step}")
        expected = {"relax": 0, "proxy": max(1, len(self.candidates))}.get(self.task, 1)
        if len(self.candidates) != expected:
            raise ValueError(f"a {self.task} job has {len(self.candidates)} candidates; must be {expected}")
        return self

    @property
    def kind(self) -> Kind:
        """The task or, for a short run, the rung that it reaches: jobs of a kind take about as long."""
        return self.stop_step if self.task == "proxy" else self.task


class Costs(_Data):
    """The known costs of a network in inference; the latency is a table's prediction."""

    madds: int | None = None
    params: int | None = None
    latency_ms: float | None = None
    memory_bytes: int | None = None


class Outcome(Costs):
    """The result of one candidate in one job, with its costs; `step` is the step it reached."""

    key: str
    status: Status
    step: int
    miou: float | None = Field(default=None, allow_inf_nan=False)
    class_iou: tuple[float | None, ...] = ()
    message: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.status == "ok" and self.miou is None:
            raise ValueError("an outcome with status ok must have a miou")
        return self


class JobResult(_Data):
    """The outcomes of a job, one per candidate, in the same order, and the seconds it took, some of them for storing.

    A `relax` job has the choices that it `found`, as JSON (none before the first update of the architecture), or a
    `message` if it failed.
    """

    job: Job
    outcomes: tuple[Outcome, ...]
    seconds: float
    storing_seconds: float = 0.0
    found: tuple[dict[str, object], ...] = ()
    message: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        expected, got = [c.key for c in self.job.candidates], [o.key for o in self.outcomes]
        if got != expected:
            raise ValueError(f"outcomes are for {got}; must be for the job's candidates {expected}")
        return self

    @property
    def is_failure(self) -> bool:
        """Whether the job could not be run, which may be due to the process or the device."""
        return self.message is not None or any(outcome.status == "failed" for outcome in self.outcomes)

    @property
    def was_trained(self) -> bool:
        """Whether it was carried out for all its candidates: no failure, and none that does not fit."""
        return not self.is_failure and all(outcome.status != "unfit" for outcome in self.outcomes)

    @property
    def reason(self) -> str | None:
        """The message of a failure."""
        return self.message or next((outcome.message for outcome in self.outcomes if outcome.message), None)

    @classmethod
    def failed(cls, job: Job, message: str, seconds: float = 0.0) -> JobResult:
        """Make the result of a job that could not be run."""
        outcomes = [Outcome(key=c.key, status="failed", step=job.start_step, message=message) for c in job.candidates]
        return cls(job=job, outcomes=tuple(outcomes), seconds=seconds, message=None if outcomes else message)


class Worker(Protocol):
    """A runner of jobs, one after another. There is one per process, so it may keep data and models in memory."""

    def run(self, job: Job) -> JobResult:
        """Run `job` to its end. A candidate that diverges is an outcome; an exception ends the search."""
