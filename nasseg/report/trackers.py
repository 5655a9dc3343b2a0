"""A training run in the tracker that a team uses: Weights & Biases or MLflow, through its own library."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PROJECT = "nasseg"
FOLDER_TAG = "nasseg.folder"


class Tracker(ABC):
    """One training run in a tracker; a run that is resumed from its folder goes on in the same record."""

    def add_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Log the loss and the learning rate at a training step."""
        self.write({"train/loss": loss, "train/learning rate": learning_rate}, step)

    def add_validation(self, step: int, miou: float, class_iou: Sequence[float | None], classes: Sequence[str]) -> None:
        """Log scores on the validation split; classes in neither truth nor prediction are left out."""
        ious = zip(classes, class_iou, strict=True)
        by_class = {f"val IoU by class/{name}": iou for name, iou in ious if iou is not None}
        self.write({"val/mIoU": miou, **by_class}, step)

    @abstractmethod
    def write(self, values: Mapping[str, float], step: int) -> None:
        """Log values by name at a step."""

    @abstractmethod
    def close(self) -> None:
        """Write out what is pending."""


class WeightsAndBiases(Tracker):
    """A run in the project `nasseg` of Weights & Biases, where the user is logged in or as `WANDB_MODE` says."""

    def __init__(self, folder: Path, options: Mapping[str, object]) -> None:
        import wandb

        identity = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        self._run: Any = wandb.init(
            project=PROJECT, name=folder.name, id=identity, resume="allow", dir=str(folder), config=dict(options)
        )
        # Steps that are repeated after a kill would otherwise be refused, as W&B's own only rise.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Log values by name at a step."""
        self._run.log({"step": step, **values})

    def close(self) -> None:
        """Write out what is pending."""
        self._run.finish()


class MLflow(Tracker):
    """A run in MLflow's experiment `nasseg`, at `MLFLOW_TRACKING_URI` or where MLflow keeps runs by default."""

    def __init__(self, folder: Path, options: Mapping[str, object]) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        mlflow.set_experiment(PROJECT)
        path = str(folder.resolve())
        quoted = path.replace("'", "\\'")
        begun = mlflow.search_runs(
            experiment_names=[PROJECT], filter_string=f"tags.`{FOLDER_TAG}` = '{quoted}'", output_format="list"
        )
        if begun:
            mlflow.start_run(run_id=begun[0].info.run_id)
        else:
            mlflow.start_run(run_name=folder.name, tags={FOLDER_TAG: path})
            mlflow.log_params(dict(options))

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Log values by name, whose characters MLflow must take, at a step."""
        named = {re.sub(r"[^\w./ -]", "_", name): value for name, value in values.items()}
        self._mlflow.log_metrics(named, step=step, synchronous=False)

    def close(self) -> None:
        """Write out what is pending."""
        self._mlflow.flush_async_logging()
        self._mlflow.end_run()


TRACKERS: dict[str, Callable[[Path, Mapping[str, object]], Tracker]] = {"wandb": WeightsAndBiases, "mlflow": MLflow}
"""Trackers by the name of their package, from a run folder and the options of its run."""


def check_tracker(name: str) -> None:
    """Raise `ValueError` for an unknown tracker, or one whose package is missing."""
    if name not in TRACKERS:
        raise ValueError(f"log is {name!r}, but must be one of {', '.join(TRACKERS)}; TensorBoard is always written")
    if find_spec(name) is None:
        raise ValueError(f"log {name} needs the package {name}; pip install nasseg[{name}]")
