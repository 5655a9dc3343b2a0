"""The options of a retraining, and what follows from the data and the architecture for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError, model_validator

from nasseg import plugins
from nasseg.data import Dataset, Split
from nasseg.errors import one_line
from nasseg.graph import Architecture
from nasseg.train.recipe import Recipe
from nasseg.train.recipes import OWN_RECIPES, RECIPES, paper_recipe
from nasseg.train.recipes import recipe as named_recipe

RECIPE_OPTIONS = (
    "steps",
    "batch_size",
    "crop",
    "learning_rate",
    "boundary_weight",
    "class_weights",
    "detail_head",
    "accumulate",
    "compile",
    "teacher_weight",
)
"""The fields of a recipe that a retraining has options for."""
VALIDATIONS_IN_A_RUN = 10
"""Unless the user says how many steps lie between two."""


class RetrainConfig(BaseModel):
    """The resolved options of a retraining run: the content of its `config.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    train_split: str
    val_split: str
    weights: str | None
    recipe: Recipe
    device: str
    seed: int
    workers: PositiveInt = 1
    """Processes that train together."""
    readers: NonNegativeInt = 0
    """Threads of each worker that read images ahead; runs of before there were workers call these workers."""
    cache: bool = True
    """Whether images are decoded once, into the user's cache."""
    threads: int | None = None
    """Threads of the processor, of each worker; older runs leave it to PyTorch."""
    validate_every: PositiveInt | None = None
    """Steps between two validations; older runs leave it to the number of steps."""
    patience: PositiveInt | None = None
    """Validations without a higher mIoU after which the training ends early."""
    teacher: str | None = None
    """Run folder or model file of the network whose predictions are learnt, too."""
    log: Literal["wandb", "mlflow"] | None = None
    """Tracker that gets what TensorBoard gets."""

    @model_validator(mode="before")
    @classmethod
    def _of_before_workers(cls, values: Any) -> Any:
        if isinstance(values, dict) and "readers" not in values and "workers" in values:
            return {**values, "readers": values["workers"], "workers": 1}
        return values

    def as_options(self) -> dict[str, object]:
        """Return the options that another retraining like this one is given: a recipe's name and what differs from it.

        The tracker is left out, as no file must name it. Raises `ValueError` if no named recipe is this one's with
        those changes for which there are options.
        """
        changes = self.recipe.model_dump(include=set(RECIPE_OPTIONS))
        name = next((name for name in RECIPES if self._is_made_of(name, changes)), None)
        if name is None:
            raise ValueError(f"its recipe is none of {', '.join(RECIPES)}; give the options themselves")
        unchanged = named_recipe(name)
        different = {field: value for field, value in changes.items() if value != getattr(unchanged, field)}
        values = {
            **self.model_dump(exclude={"recipe", "threads", "log"}),
            "weights": self.weights or "none",
            "recipe": name,
        }
        values |= {**different, "crop": "{}x{}".format(*self.recipe.crop)}
        if self.recipe.class_weights is not None:
            values["class_weights"] = ",".join(map(str, self.recipe.class_weights))
        return {option: value for option, value in values.items() if value is not None}

    def _is_made_of(self, name: str, changes: Mapping[str, object]) -> bool:
        """Whether the named recipe with these changes, some of which it may not take, is this one's."""
        try:
            return named_recipe(name, **changes) == self.recipe
        except ValidationError:
            return False

    def check_batch(self) -> None:
        """Raise `ValueError` unless a batch can be shared by all workers, and a share be taken in parts."""
        images, share = self.recipe.batch_size, self.recipe.batch_size // self.workers
        if images % self.workers:
            raise ValueError(f"batch_size is {images}, but must be a multiple of the {self.workers} workers")
        if share < self.recipe.accumulate:
            raise ValueError(f"accumulate is {self.recipe.accumulate}, but each worker has {share} images of a batch")

    @property
    def interval(self) -> int:
        """The number of steps between two validations."""
        return self.validate_every or max(1, self.recipe.steps // VALIDATIONS_IN_A_RUN)

    def validates_at(self, step: int) -> bool:
        """Tell whether the state after `step` is scored: at every interval and at the end."""
        return step == self.recipe.steps or (step > 0 and step % self.interval == 0)

    def next_validation(self, step: int) -> int:
        """Return the first step after `step` whose state is scored."""
        return min(self.recipe.steps, (step // self.interval + 1) * self.interval)

    def validations_after(self, step: int) -> int:
        """Count the validations that are still to come after `step`."""
        return -(-self.recipe.steps // self.interval) - step // self.interval if step < self.recipe.steps else 0


def built_for(arch: str, architecture: Architecture, dataset: Dataset, named_by_user: str | None) -> Architecture:
    """Build the architecture for the data's classes: a name directly, a file from its choice."""
    classes = len(dataset.classes)
    if architecture.classes == classes:
        return architecture
    if not plugins.is_file(arch):
        return plugins.architecture(arch, classes)
    if architecture.space is None or architecture.choice is None:
        raise ValueError(
            f"{arch} has logits for {architecture.classes} classes, but {dataset.spec} has {classes}; give an "
            "architecture made for this data, or a baseline's name"
        )
    space = plugins.space(architecture.space, named_by_user=named_by_user, where=arch)
    rebuilt = space.architecture(space.parse(architecture.choice), classes)
    return rebuilt.replace(space=architecture.space, choice=architecture.choice, provenance=architecture.provenance)


def fitting_recipe(name: str, architecture: str, train: Split, changes: Mapping[str, object]) -> Recipe:
    """Make the named recipe, its crop no larger than a typical image rounded up to whole strides of 32 pixels."""
    height, width = train.typical_size()
    try:
        made = paper_recipe(architecture, **changes) if name == "paper" else named_recipe(name, **changes)
    except ValidationError as error:
        raise ValueError(one_line(error, "recipe")) from None
    if "crop" in changes:
        return made
    fitting = (-(-height // 32) * 32, -(-width // 32) * 32)
    crop = fitting if name in OWN_RECIPES else tuple(map(min, made.crop, fitting))
    return Recipe.model_validate({**made.model_dump(), "crop": crop})
