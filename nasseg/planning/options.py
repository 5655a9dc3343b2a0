"""The one list of a search's options: the command line, `config.yaml` and the Python API are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from nasseg.database import DatabaseUrl
from nasseg.errors import one_line
from nasseg.planning.budget import Budget

if TYPE_CHECKING:
    import torch

    from nasseg.planning.limits import Limits

Strategy = Literal["trials", "gradient"]
Aim = Literal["score", "pareto"]
OF_GRADIENT = ("relaxations", "relax_steps", "partial_channels", "checkpoint_activations")


@dataclass(frozen=True)
class Shown:
    """How the command line's help shows an option: its panel, and the name of its value."""

    panel: str | None = None
    metavar: str | None = None


COUNTS = Shown("What counts")
RUNS = Shown("Where it runs")
DERIVED = Shown("Follows from the budget, unless given")
GRADIENT = Shown("Search by gradient")


class SearchOptions(BaseModel):
    """All options of a search.

    An option left at `None` is derived: objective and sampler from strategy, limits and space, the rest from the
    budget and the measured speed. Limits are kept as written; `rungs` may also be text, as on the command line:
    `"60,180"`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    space: str = Field(
        default="encoder_decoder",
        description="encoder_decoder, dpc or auto_deeplab, with [:OPTIONS], or package.module:Class.",
    )
    budget: Budget | str = Field(
        default=Budget(amount=30, unit="min"), description="200gpu-h, 8cpu-h, 2h, 30min or 40trials."
    )
    data: Annotated[str, Shown(metavar="DATA")] = Field(
        default="streets",
        description="streets[:OPTIONS] (generated), folder:PATH, or NAME:PATH (`nasseg list datasets`).",
    )
    train_split: str = Field(default="train", description="Split that trials train on.")
    val_split: str = Field(
        default="val", description="Split that trials are scored on; 20% draws it from the other one (20%,seed=1,by=_)."
    )
    weights: Annotated[str | None, Shown(metavar="FILE,…|DIR|imagenet")] = Field(
        default=None,
        description="Pretrained backbones: files joined by commas, a folder of files, or imagenet. Each network takes "
        "the one of its backbone, or the part of it that it keeps.",
    )
    class_weights: Annotated[str | None, Shown(metavar="W,…|balanced")] = Field(
        default=None,
        description="Weight of each class in the loss of all runs, like 1,1,5; balanced: rare ones count more.",
    )
    strategy: Strategy = Field(default="trials", description="By trials, or by gradient if the space can be relaxed.")
    sampler: str | None = Field(
        default=None,
        description="gp (default for a score within limits, in a space with a dial); nsga2 (default for a front); "
        "neighbourhood (default by gradient); tpe (else); evolution; or random.",
    )
    inherit: bool = Field(
        default=True,
        description="Start trials on images from the weights of earlier ones. With --weights, all start from those.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of everything random.")

    objective: Annotated[Aim | None, COUNTS] = Field(
        default=None,
        description="One score, or a front of mIoU and cost: pareto for a space with a dial if no limit is given, else "
        "score.",
    )
    cost_weight: Annotated[float, COUNTS] = Field(
        default=-0.07, le=0, description="Exponent of relative cost in the score, at most 0, which ignores cost."
    )
    latency: Annotated[str | None, Shown(COUNTS.panel, "TABLE.json")] = Field(
        default=None, description="Table from nasseg profile: cost is latency, not MAdds."
    )
    target_latency: Annotated[str | None, COUNTS] = Field(
        default=None, description="Highest latency, like 20ms, by the table or on this machine."
    )
    max_params: Annotated[str | None, COUNTS] = Field(default=None, description="Most parameters, like 3M.")
    max_madds: Annotated[str | None, COUNTS] = Field(default=None, description="Most MAdds, like 2G.")
    max_memory: Annotated[str | None, COUNTS] = Field(
        default=None, description="Most memory at inference, like 512MiB."
    )

    image_scale: Annotated[float | None, DERIVED] = Field(
        default=None, ge=0.05, le=1, description="Scale of images in the search."
    )
    rungs: Annotated[tuple[int, ...] | None, Shown(DERIVED.panel, "A,B")] = Field(
        default=None, description="Steps at which candidates are compared, like 60,180."
    )
    full_steps: Annotated[int | None, DERIVED] = Field(default=None, ge=1, description="Steps of an end-to-end run.")
    finalists: Annotated[int | None, DERIVED] = Field(default=None, ge=1, description="Candidates trained end to end.")
    seeds: Annotated[int | None, DERIVED] = Field(default=None, ge=1, description="Seeds of each end-to-end run.")

    relaxations: Annotated[int | None, GRADIENT] = Field(default=None, ge=1, description="Relaxations trained.")
    relax_steps: Annotated[int | None, GRADIENT] = Field(default=None, ge=1, description="Steps of a relaxation.")
    partial_channels: Annotated[int | None, Shown(GRADIENT.panel, "K")] = Field(
        default=None, ge=1, description="Relax 1/K of the channels, to save memory."
    )
    checkpoint_activations: Annotated[bool | None, GRADIENT] = Field(
        default=None, description="Compute a relaxation's activations twice, to save memory; on GPUs by default."
    )

    device: Annotated[str, RUNS] = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    runner: Annotated[Literal["ray", "in-process"], RUNS] = Field(default="ray", description="What runs the jobs.")
    ray_address: Annotated[str | None, RUNS] = Field(default=None, description="Join this Ray cluster.")
    concurrency: Annotated[int | None, RUNS] = Field(default=None, ge=1, description="Jobs at once.")
    gpus_per_trial: Annotated[float | None, RUNS] = Field(
        default=None, ge=0.01, description="Share of a GPU that a job takes."
    )
    storage: Annotated[DatabaseUrl | None, Shown(RUNS.panel, "URL")] = Field(
        default=None,
        repr=False,
        description="Database URL of the record, instead of the run folder's journal. Its password is not saved, but "
        "others on this machine see it on a command line: PGPASSWORD or ~/.pgpass hide it.",
    )

    study: Annotated[str | None, Shown(RUNS.panel, "NAME")] = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Name of the record in --storage; the run folder's with a few letters if not given. A search "
        "joins the study of this name, if there is one: both try candidates, none twice.",
    )

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> Self:
        """Check options by name; raises a one-line `ValueError` for an unknown name or an invalid value."""
        try:
            return cls.model_validate(dict(given))
        except ValidationError as error:
            raise ValueError(one_line(error)) from None

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        if unknown := [name for name in given if name not in cls.model_fields]:
            raise ValueError(f"unknown option {unknown[0]!r}; known: {', '.join(cls.model_fields)}")
        resolved = dict(given)
        if isinstance(resolved.get("budget"), str):
            resolved["budget"] = Budget.parse(resolved["budget"])
        if "%" in str(resolved.get("val_split")):
            from nasseg.data.drawn import drawn_splits

            train = str(resolved.get("train_split", cls.model_fields["train_split"].default))
            resolved["train_split"], resolved["val_split"] = drawn_splits(train, str(resolved["val_split"]))
        if resolved.get("rungs") is not None:
            resolved["rungs"] = _parse_rungs(resolved["rungs"])
        return resolved

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in OF_GRADIENT if getattr(self, name) is not None]
        if given and self.strategy != "gradient":
            raise ValueError(f"{given[0]} is for strategy gradient; set that too, or leave it out")
        if self.class_weights is not None and self.strategy == "gradient":
            raise ValueError("class_weights are for strategy trials; leave them out")
        if self.study is not None and self.storage is None:
            raise ValueError("study names a record in a database; give --storage too, or leave it out")
        return self

    @property
    def limits(self) -> Limits:
        """The limits that networks must keep; raises `ValueError` for a malformed one."""
        from nasseg.planning.limits import Limits

        return Limits.parse(**self.model_dump(include={"target_latency", "max_params", "max_madds", "max_memory"}))

    def from_anywhere(self) -> Self:
        """Return the same options with paths that every working folder understands; raises `DataError` for no data."""
        from nasseg.data import open_dataset
        from nasseg.train.weights.loading import absolute_source

        paths = {"data": open_dataset(self.data).spec} if "data" in self.model_fields_set else {}
        if self.weights is not None:
            paths["weights"] = absolute_source(self.weights)
        return self.model_copy(update=paths)

    @property
    def torch_device(self) -> torch.device:
        """The device that trials run on."""
        from nasseg.train.device import choose_device

        return choose_device(self.device)


def _parse_rungs(given: Any) -> tuple[int, ...]:
    """Parse `"60,180"` or a sequence of numbers."""
    try:
        steps = tuple(int(step) for step in given.split(",")) if isinstance(given, str) else tuple(given)
        is_rising = bool(steps) and all(low < high for low, high in pairwise((0, *steps)))
    except (TypeError, ValueError):
        is_rising = False
    if not is_rising:
        raise ValueError(f"rungs are {given!r}, but must be rising numbers of steps, like 60,180")
    return steps
