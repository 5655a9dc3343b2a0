"""What follows a retraining, in one process or in several."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

import torch

from nasseg.train.distributed.group import Group
from nasseg.train.fit import Stopped
from nasseg.train.metrics import Metrics
from nasseg.train.retraining.history import History
from nasseg.train.trainer import Trainer


class Watcher(Protocol):
    """What follows a retraining; its methods may raise `Stopped`, all but `score`."""

    def step(self, trainer: Trainer, loss: float, learning_rate: float) -> None:
        """Take the loss of the step that the trainer took, and the backbone's learning rate."""

    def validating(self, images: int) -> None:
        """Take the number of images scored so far in a validation that goes on."""

    def score(self, step: int, metrics: Metrics, history: History) -> None:
        """Take the scores after `step`, and those of all validations."""


class Unwatched:
    """A watcher that looks at nothing."""

    def step(self, trainer: Trainer, loss: float, learning_rate: float) -> None:
        """Ignore the step."""

    def validating(self, images: int) -> None:
        """Ignore the images."""

    def score(self, step: int, metrics: Metrics, history: History) -> None:
        """Ignore the scores."""


class InAgreement:
    """The watcher of a process of a group: if one of them stops, all stop after the same step.

    A validation is not stopped, as parts may differ in their number of batches; the step after it is.
    """

    def __init__(self, watcher: Watcher, group: Group) -> None:
        self._watcher, self._group = watcher, group

    def step(self, trainer: Trainer, loss: float, learning_rate: float) -> None:
        """Let the watcher take the step; raises `Stopped` if that of any process does."""
        stops = torch.zeros(1, device=trainer.device)
        try:
            self._watcher.step(trainer, loss, learning_rate)
        except Stopped:
            stops += 1
        if self._group.sum(stops).item():
            raise Stopped

    def validating(self, images: int) -> None:
        """Let the watcher take the number of images."""
        with suppress(Stopped):
            self._watcher.validating(images)

    def score(self, step: int, metrics: Metrics, history: History) -> None:
        """Let the watcher take the scores."""
        self._watcher.score(step, metrics, history)
