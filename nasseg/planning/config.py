"""The options of a search and the plan made from them: the content of a run folder's `config.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from nasseg import plugins
from nasseg.database import given_again
from nasseg.planning.budget import Budget
from nasseg.planning.options import Aim, SearchOptions
from nasseg.planning.settings import PlannerSettings
from nasseg.run_folder import CONFIG_FILE, load_config, save_config
from nasseg.train.recipe import Recipe
from nasseg.train.relaxation.recipe import RelaxationRecipe


class Plan(PlannerSettings):
    """Everything about a search that follows from its budget and the measured speed, unless given.

    Images are scaled by `image_scale` during the search. Features of `views` augmented copies of each image are cached.
    Proxy training uses masks sampled at `label_stride`, for the loss and for scoring. By the measured speed,
    `expected_candidates` can be tried in the time; unknown for a budget of trials.
    """

    image_scale: Annotated[float, Field(gt=0, le=1)]
    expected_candidates: int | None = None
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
    objective: Aim
    plan: Plan

    @classmethod
    def of(cls, options: SearchOptions, plan: Plan) -> SearchConfig:
        """Combine options with the plan made for them."""
        given = {name: getattr(options, name) for name in SearchOptions.model_fields}
        return cls.model_validate({**given, "plan": plan})

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
