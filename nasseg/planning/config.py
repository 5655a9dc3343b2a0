"""What a search was asked for, and the plan made from that: the content of a run folder's `config.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from nasseg import plugins
from nasseg.database import given_again
from nasseg.planning.budget import Budget
from nasseg.planning.options import SearchOptions
from nasseg.planning.settings import PlannerSettings
from nasseg.run_folder import CONFIG_FILE, load_config, save_config
from nasseg.train.recipe import Recipe
from nasseg.train.relaxation.recipe import RelaxationRecipe


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


class SearchConfig(SearchOptions):
    """A search's options, resolved, and the plan made for them."""

    budget: Budget
    sampler: str
    plan: Plan

    @classmethod
    def of(cls, options: SearchOptions, plan: Plan) -> SearchConfig:
        """The config of a search that follows `plan`."""
        given = {name: getattr(options, name) for name in SearchOptions.model_fields}
        return cls.model_validate({**given, "plan": plan})

    def save(self, folder: Path) -> None:
        """Write `config.yaml` into a run folder."""
        save_config(self, folder)

    @classmethod
    def load(cls, folder: Path, *, space: str | None = None, storage: str | None = None) -> SearchConfig:
        """Read the `config.yaml` of a run folder, which may be someone else's.

        `space` and `storage` are what the user names on the command line: a space that is not registered
        (`plugins.check_space`), and the database's URL with its password, which is not saved. Raises `ValueError` if
        the file is missing or off, or names another space or database.
        """
        saved = load_config(cls, folder, "search")
        plugins.check_space(saved.space, space, str(folder / CONFIG_FILE))
        return saved.model_copy(update={"storage": given_again(saved.storage, storage)})
