"""The origin of an architecture or a trained model, which `retrain`, `evaluate` and `predict` read from its file."""

from __future__ import annotations

import platform
from importlib.metadata import version

from pydantic import BaseModel, ConfigDict, ValidationError

from nasseg.cost.latency import Latency
from nasseg.data import Dataset
from nasseg.errors import one_line
from nasseg.foreign import Line
from nasseg.graph import Architecture


class DataInfo(BaseModel):
    """The data a network is for. `spec` opens it again; `size` is the images' (height, width) in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: Line
    train_split: Line
    val_split: Line
    classes: tuple[Line, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int
    size: tuple[int, int]

    @classmethod
    def of(cls, dataset: Dataset, train_split: str, val_split: str, size: tuple[int, int]) -> DataInfo:
        """Collect what a file must remember of a data set and its splits."""
        return cls(
            spec=dataset.spec,
            train_split=train_split,
            val_split=val_split,
            classes=dataset.classes,
            palette=dataset.palette,
            ignore_index=dataset.ignore_index,
            size=size,
        )


class Provenance(BaseModel):
    """The origin of a network: how it was found or trained. `miou` holds scores by what they were measured on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: DataInfo
    weights: str | None = None
    budget: str | None = None
    seed: int = 0
    miou: dict[str, float] = {}
    latency: Latency | None = None
    versions: dict[str, str] = {}

    @classmethod
    def read(cls, architecture: Architecture) -> Provenance | None:
        """Read an architecture's provenance, `None` if it has none; raises `ValueError` if it is invalid."""
        if architecture.provenance is None:
            return None
        try:
            return cls.model_validate(architecture.provenance)
        except ValidationError as error:
            raise ValueError(one_line(error, f"{architecture.name}: provenance")) from None

    def on(self, architecture: Architecture) -> Architecture:
        """Return the architecture with this provenance in its file."""
        return architecture.replace(provenance=self.model_dump(mode="json"))


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("nasseg", "torch")}}
