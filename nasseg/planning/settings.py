"""The part of a plan that the planner follows."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self


class PlannerSettings(BaseModel):
    """The part of a plan that decides what is trained next; a `Plan` adds how it is trained.

    Candidates are compared by proxy at the steps `rungs`, and trained end to end for `full_steps`. `candidates` limits
    the number of distinct ones, including the references. After `proxy_share` of the budget no new candidate is started
    and none promoted, except the references and as many as the final needs.

    `relaxations` are trained for `relax_steps` each before the sampler is asked for candidates. After `relax_share` of
    the budget their training stops, and what they have found so far counts.

    A job trains `candidates_per_job` candidates, and `concurrency` jobs run at once.
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
    concurrency: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rungs[0] <= 0 or any(low >= high for low, high in zip(self.rungs, self.rungs[1:], strict=False)):
            raise ValueError(f"rungs are {self.rungs}; must be rising steps above 0, like (200, 600, 1800)")
        return self
