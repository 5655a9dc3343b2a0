"""What a search was asked for, and what it derived from that: the content of a run folder's `config.yaml`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from nasseg import plugins
from nasseg.planning.budget import Budget
from nasseg.planning.database import DatabaseUrl, given_again
from nasseg.planning.limits import Limits
from nasseg.planning.objective import Aim
from nasseg.planning.samplers import SAMPLERS
from nasseg.run_folder import CONFIG_FILE, load_config, save_config
from nasseg.train.device import choose_device
from nasseg.train.recipe import Recipe
from nasseg.train.relaxation.recipe import RelaxationRecipe

Strategy = Literal["trials", "gradient"]


class Plan(BaseModel):
    """The dials of a search that follow from its budget and the measured speed, unless they are given.

    `image_scale` is what images are scaled by during the search, `rungs` the steps at which proxy trainings are
    compared, `views` the augmented copies of each image whose features are cached, `label_stride` the stride at which
    proxy trainings see and are scored on masks. A search by gradient trains `relaxations` for `relax_steps` each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_scale: Annotated[float, Field(gt=0, le=1)]
    rungs: tuple[int, ...]
    full_steps: int
    candidates: int | None
    finalists: int
    seeds: int
    proxy_share: float
    views: int
    label_stride: int = 4
    reduction: int = 3
    concurrency: int
    candidates_per_job: int = 1
    threads: int
    gpus_per_trial: float = 0.0
    proxy_recipe: Recipe
    full_recipe: Recipe
    relaxations: int = 0
    relax_steps: int = 0
    relax_share: float = 1.0
    relax_recipe: RelaxationRecipe | None = None


class SearchConfig(BaseModel):
    """What a user asks of a search. `plan` is filled in before it starts.

    `latency` is the file of a latency table, whose milliseconds then are the cost instead of MAdds. Limits are as
    `Limits.parse` reads them. The password of `storage` is in no dump.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: str = "dpc"
    data: str = "streets"
    train_split: str = "train"
    val_split: str = "val"
    budget: Budget
    strategy: Strategy = "trials"
    weights: str | None = None
    objective: Aim = "score"
    sampler: str = Field(default_factory=lambda data: _default_sampler(data["strategy"], data["objective"]))
    runner: Literal["ray", "in-process"] = "ray"
    storage: Annotated[DatabaseUrl | None, Field(repr=False)] = None
    ray_address: str | None = None
    device: str = "auto"
    seed: int = 0
    cost_weight: Annotated[float, Field(le=0)] = -0.07
    latency: str | None = None
    target_latency: str | None = None
    max_params: str | None = None
    max_madds: str | None = None
    max_memory: str | None = None
    inherit: bool = True
    plan: Plan | None = None

    @property
    def limits(self) -> Limits:
        """What networks must keep; raises `ValueError` where one is not written as it must be."""
        return Limits.parse(**self.model_dump(include={"target_latency", "max_params", "max_madds", "max_memory"}))

    @property
    def torch_device(self) -> torch.device:
        """The device that trials run on."""
        return choose_device(self.device)

    def save(self, folder: Path) -> None:
        """Write `config.yaml` into a run folder."""
        save_config(self, folder)

    @classmethod
    def load(cls, folder: Path, *, space: str | None = None, storage: str | None = None) -> SearchConfig:
        """Read the `config.yaml` of a run folder, which may be someone else's.

        `space` and `storage` are what the user names on the command line: a space that is not registered
        (`plugins.check_space`), and the database's URL with its password, which is not saved. Raises `ValueError` where
        the file is missing or off, or names another space or database.
        """
        saved = load_config(cls, folder, "search")
        plugins.check_space(saved.space, space, str(folder / CONFIG_FILE))
        return saved.model_copy(update={"storage": given_again(saved.storage, storage)})


def _default_sampler(strategy: Strategy, objective: Aim) -> str:
    if objective == "pareto":
        return "nsga2"
    return "neighbourhood" if strategy == "gradient" else "tpe"


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_sampler(name: str) -> str:
    """The sampler's name; raises `ValueError` for an unknown one."""
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; known: {', '.join(SAMPLERS)}")
    return name
