"""The options of a search and the plan made from them: the content of a run folder's `config.yaml`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from nasseg import plugins
from nasseg.database import given_again
from nasseg.planning.budget import Budget
from nasseg.planning.job import Job
from nasseg.planning.machine import Hardware, JobTimes, cores
from nasseg.planning.options import Aim, SearchOptions
from nasseg.run_folder import CONFIG_FILE, load_config, save_config
from nasseg.train.recipe import Recipe
from nasseg.train.relaxation.recipe import RelaxationRecipe

CHANGEABLE = ("budget", "finalists", "concurrency", "runner", "ray_address")
"""The options of a search that a resumption may change."""
ELSEWHERE = ("ray_address", "storage", "study")
"""The options of a search that lead to other machines, or name its record there."""
ONLY_CHANGEABLE = "only --budget, --finalists, --concurrency, --runner and --ray-address can change"
OF_EACH = (*CHANGEABLE, "data", "weights", "latency", "device", "gpus_per_trial", "storage", "study")
"""The options that each search of a study has for itself; data, weights and table are to have the same content."""
OF_MACHINE = ("concurrency", "runner", "ray_address", "latency", "device", "gpus_per_trial", "storage", "study")
"""Those of them that are not taken from the study even where they are left out."""
OF_PLAN = ("image_scale", "rungs", "full_steps", "finalists", "seeds", "relaxations", "relax_steps")
"""The options that follow from the budget unless given, and are the same for all searches of a study."""
COMPARABLE = (
    *("image_scale", "rungs", "reduction", "full_steps", "prepare_steps", "seeds", "views", "label_stride"),
    *("candidates_per_job", "proxy_recipe", "full_recipe", "relax_recipe", "relaxations", "relax_steps"),
)
"""The part of a plan by which scores can be compared."""


class PlannerSettings(BaseModel):
    """The part of a plan that decides what is trained next; a `Plan` adds how it is trained.

    Candidates are compared by proxy at the steps `rungs`, and trained end to end for `full_steps`. The features that
    they may share are those of the first reference, trained for `prepare_steps`; if that is `None`, its first
    end-to-end run gives them. `candidates` limits the number of distinct ones, including the references. After
    `proxy_share` of the budget no new candidate is started and none promoted, except the references and as many as the
    final needs.

    `relaxations` are trained for `relax_steps` each before the sampler is asked for candidates. After `relax_share` of
    the budget their training stops, and what they have found so far counts.

    A job trains `candidates_per_job` candidates, and `concurrency` jobs run at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rungs: tuple[int, ...] = Field(min_length=1, max_length=20)
    full_steps: int = Field(gt=0)
    prepare_steps: int | None = Field(default=None, gt=0)
    reduction: int = Field(default=3, ge=2)
    candidates: int | None = Field(default=None, gt=0)
    finalists: int = Field(default=3, ge=0, le=10_000)
    seeds: int = Field(default=2, ge=1, le=1000)
    proxy_share: float = Field(default=0.6, ge=0, le=1)
    candidates_per_job: int = Field(default=1, ge=1, le=10_000)
    relaxations: int = Field(default=0, ge=0, le=1000)
    relax_steps: int = Field(default=0, ge=0)
    relax_share: float = Field(default=1.0, ge=0, le=1)
    concurrency: int = Field(default=1, ge=1, le=10_000)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rungs[0] <= 0 or any(low >= high for low, high in zip(self.rungs, self.rungs[1:], strict=False)):
            raise ValueError(f"rungs are {self.rungs}; must be rising steps above 0, like (200, 600, 1800)")
        return self

    def compares(self, job: Job) -> bool:
        """Whether a job is one of the end-to-end runs that the final compares."""
        return job.task == "full" or (job.task == "prepare" and self.prepare_steps is None)


class Plan(PlannerSettings):
    """Everything about a search that follows from its budget and the measured speed, unless given.

    Images are scaled by `image_scale` during the search. Features of `views` augmented copies of each image are cached.
    Proxy training uses masks sampled at `label_stride`, for the loss and for scoring. Each worker may keep features of
    `resident_bytes` on its GPU, beside its job. By the measured speed, `expected_candidates` can be tried in the time;
    unknown for a budget of trials.
    """

    image_scale: Annotated[float, Field(gt=0, le=1)]
    expected_candidates: int | None = None
    views: int = Field(ge=1, le=1000)
    label_stride: int = Field(default=4, ge=1, le=64)
    resident_bytes: int = Field(default=0, ge=0)
    threads: int = Field(ge=1, le=1000)
    gpus_per_trial: float = 0.0
    proxy_recipe: Recipe
    full_recipe: Recipe
    relax_recipe: RelaxationRecipe | None = None


class Fingerprints(BaseModel):
    """Fingerprints of what a search reads, by which a later change is seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: str
    val: str
    weights: str | None = None
    latency: str | None = None
    """Of the latency table; searches that began before studies could be shared have none."""


class SearchConfig(SearchOptions):
    """A search's options, resolved, the plan made for them, what jobs take by the measured speed, and what it reads."""

    budget: Budget
    sampler: str
    objective: Aim
    plan: Plan
    times: JobTimes | None = None
    fingerprints: Fingerprints | None = None
    search_id: str | None = None
    """By which a study in a database is known to be this search's; older searches have none."""

    @classmethod
    def of(cls, options: SearchOptions, plan: Plan, times: JobTimes, fingerprints: Fingerprints) -> SearchConfig:
        """Combine options with the plan made for them."""
        given = {name: getattr(options, name) for name in SearchOptions.model_fields}
        return cls.model_validate({**given, "plan": plan, "times": times, "fingerprints": fingerprints})

    def changed(self, asked: SearchOptions) -> SearchConfig:
        """Return the same search with those options of `asked` that are set, of which only `CHANGEABLE` may differ.

        Runs are as long as they were, so that all scores can be compared; a larger budget or more finalists buy more of
        them. Raises `ValueError` for any other change.
        """
        differing = self._differing(asked, CHANGEABLE, f"in the search; {ONLY_CHANGEABLE}")
        changes = {name: getattr(asked, name) for name in differing}
        plan: dict[str, Any] = {}
        if "budget" in differing:
            changes["budget"] = self._checked(Budget.parse(asked.budget))
            plan |= {"candidates": changes["budget"].trials, "expected_candidates": None}
        if "finalists" in differing:
            if (asked.finalists or 0) < self.plan.finalists:
                raise ValueError(f"finalists are {asked.finalists}, but {self.plan.finalists} in the search; give more")
            plan["finalists"] = asked.finalists
        if "concurrency" in differing:
            plan |= self._other_concurrency(asked.concurrency or 1)
        return self.model_copy(update={**changes, "plan": self.plan.model_copy(update=plan)})

    def as_options(self) -> dict[str, object]:
        """Return the options that another search like this one is given: not what was derived for it, nor its record.

        A cluster and a database are left out, too, as no file must name them.
        """
        values = {name: getattr(self, name) for name in SearchOptions.model_fields}
        values |= {"budget": str(self.budget), "rungs": self.rungs and ",".join(map(str, self.rungs))}
        return {name: value for name, value in values.items() if value is not None and name not in ELSEWHERE}

    def joined(self, asked: SearchOptions, study: str) -> SearchOptions:
        """Return the options of another search that joins the `study` of this one.

        Those that each has for itself are as asked or, if left out, as here, except for what depends on the machine.
        Raises `ValueError` for any other that is given and differs.
        """
        own = {name: getattr(asked, name) for name in OF_EACH if name in asked.model_fields_set}
        self._differing(asked, OF_EACH, f"in study {study!r}; leave it out, or name another study")
        same = {name: getattr(self, name) for name in SearchOptions.model_fields if name not in OF_MACHINE}
        planned = {name: getattr(self.plan, name) or None for name in OF_PLAN}
        return SearchOptions.parse({**same, **planned, **own})

    def comparable(self, first: SearchConfig) -> SearchConfig:
        """Return the same search with the part of its plan by which scores can be compared as in the `first`."""
        plan = self.plan.model_copy(update={name: getattr(first.plan, name) for name in COMPARABLE})
        return self.model_copy(update={"plan": plan})

    def _differing(self, asked: SearchOptions, allowed: Collection[str], where: str) -> list[str]:
        """Return the options that are given and differ; raises `ValueError` for one that is not allowed to."""
        given = [name for name in SearchOptions.model_fields if name in asked.model_fields_set]
        differing = [name for name in given if getattr(asked, name) not in self._values(name)]
        for name in differing:
            if name not in allowed:
                saved = next((value for value in self._values(name) if value is not None), None)
                raise ValueError(f"{name} is {getattr(asked, name)}, but {saved} {where}")
        return differing

    def _values(self, name: str) -> tuple[object, object]:
        """Return the value of an option as it was given and, if it follows from the budget unless given, as planned."""
        return getattr(self, name), getattr(self.plan, name, None)

    def _checked(self, budget: Budget) -> Budget:
        """Check that a budget is of trials if the search's is, else of time."""
        if (budget.trials is None) != (self.budget.trials is None):
            kind = "time" if self.budget.trials is None else "trials"
            raise ValueError(f"budget {budget} cannot replace {self.budget}; give one of {kind}")
        return budget

    def _other_concurrency(self, concurrency: int) -> dict[str, Any]:
        """Return what changes in the plan with the number of jobs at once; their threads, and so scores, do not."""
        if self.budget.unit in {"cpu-h", "gpu-h"}:
            raise ValueError(f"concurrency cannot change, as it decides how long the budget of {self.budget} is")
        share = self.plan.gpus_per_trial
        if share:
            share = Hardware.of(self.torch_device, cores(), concurrency, self.gpus_per_trial).gpus_per_trial
        # How much of a GPU's memory other shares leave is not known any more.
        return {"concurrency": concurrency, "gpus_per_trial": share, "resident_bytes": 0}

    def save(self, folder: Path) -> None:
        """Write `config.yaml` into a run folder."""
        save_config(self, folder)

    @classmethod
    def load(cls, folder: Path, *, space: str | None = None, storage: str | None = None) -> SearchConfig:
        """Read the `config.yaml` of a run folder, which may be someone else's.

        `space` and `storage` come from the command line: a space that is not registered (`plugins.check_space`), and
        the database's URL with its password, which is not saved. Raises `ValueError` if the file is missing or invalid,
        or names another space or database.
        """
        saved = load_config(cls, folder, "search")
        plugins.check_space(saved.space, space, str(folder / CONFIG_FILE))
        return saved.model_copy(update={"storage": given_again(saved.storage, storage)})
