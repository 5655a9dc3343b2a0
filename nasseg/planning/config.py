"""What a search was asked for, and what it derived from that: the content of a run folder's `config.yaml`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from nasseg.planning.budget import Budget
from nasseg.planning.limits import Limits
from nasseg.planning.objective import Aim
from nasseg.planning.samplers import find_sampler
from nasseg.planning.settings import PlannerSettings
from nasseg.run_folder import load_config, save_config
from nasseg.train.device import choose_device
from nasseg.train.recipe import Recipe
from nasseg.train.relaxation.recipe import RelaxationRecipe

Strategy = Literal["trials", "gradient"]


class Plan(PlannerSettings):
    """Everything about a search that follows from its budget and the measured speed, unless it is given.

    `image_scale` is what images are scaled by during the search, `views` the augmented copies of each image whose
    features are cached, `label_stride` the stride at which proxy trainings see and are scored on masks.
    """

    image_scale: Annotated[float, Field(gt=0, le=1)]
    views: int
    label_stride: int = 4
    threads: int
    gpus_per_trial: float = 0.0
    proxy_recipe: Recipe
    full_recipe: Recipe
    relax_recipe: RelaxationRecipe | None = None


class SearchConfig(BaseModel):
    """What a user asks of a search. `plan` is filled in before it starts.

    `latency` is the file of a latency table, whose milliseconds then are the cost instead of MAdds. Limits are as
    `Limits.parse` reads them.
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
    storage: str | None = None
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
    def load(cls, folder: Path) -> SearchConfig:
        """Read a run folder's `config.yaml`; raises `ValueError` where it is missing or off."""
        return load_config(cls, folder, "search")


def _default_sampler(strategy: Strategy, objective: Aim) -> str:
    if objective == "pareto":
        return "nsga2"
    return "neighbourhood" if strategy == "gradient" else "tpe"


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_sampler(name: str) -> str:
    """The sampler's name; raises `ValueError` for an unknown one."""
    find_sampler(name)
    return name
