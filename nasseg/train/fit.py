"""Training end to end on images, for a search's finalists and for retraining."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from nasseg.data import Pace, Split, training_batches
from nasseg.graph import Architecture
from nasseg.network import Network
from nasseg.train.checkpoint import restore, save_checkpoint
from nasseg.train.device import sharing, steps_ahead
from nasseg.train.distributed.group import ALONE, Group
from nasseg.train.recipe import Recipe
from nasseg.train.trainer import Trainer, TrainLog

SAVE_EVERY_SECONDS = 60.0

OnStep = Callable[[Trainer, float, float], object]
"""Takes the trainer, the loss of the step that it took and its learning rate."""


class Stopped(Exception):  # noqa: N818 - no error: the user asked for it
    """A request to stop, raised between two steps or while the network is scored."""


def seeded_network(architecture: Architecture, seed: int) -> Network:
    """Build a network whose initial weights depend on `seed` alone; the global generator is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Network(architecture)


class Fitting:
    """A training of `network` on `split` by a recipe, which a checkpoint continues exactly.

    A run that finds the file `checkpoint` resumes from it, and saves its state there from time to time. In a group of
    processes, all resume from it and the first saves it.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        split: Split,
        *,
        device: torch.device,
        seed: int,
        readers: int = 0,
        checkpoint: Path | None = None,
        group: Group = ALONE,
        teacher: Network | None = None,
    ) -> None:
        self.trainer = Trainer(network, recipe, recipe.steps, device, seed, split.ignore_index, group, teacher)
        if checkpoint is not None and checkpoint.exists():
            restore(self.trainer, checkpoint, device)
        self.pace = Pace()
        self._batches = training_batches(
            split,
            recipe.augment,
            recipe.batch_size,
            seed,
            self.trainer.step,
            device,
            readers,
            (group.rank, group.size),
            self.pace,
        )
        self._checkpoint, self._saved = checkpoint if group.rank == 0 else None, time.monotonic()

    def run(self, until_step: int, on_step: OnStep) -> TrainLog:
        """Train until `step` is `until_step`. `on_step` may raise `Stopped`; the state is then saved."""

        def after_step(step: int, loss: float, learning_rate: float) -> None:
            on_step(self.trainer, loss, learning_rate)
            self._save_in_time()

        try:
            return self.trainer.run(self._batches, until_step, after_step)
        except Stopped:
            self.save()
            raise

    def run_ahead(self, until_step: int, on_pause: Callable[[Trainer], object]) -> TrainLog:
        """Train likewise, but ahead of the losses that are read; `on_pause` is called where the device was waited for.

        It may raise `Stopped`, too.
        """
        trainer, start, losses = self.trainer, time.perf_counter(), list[float]()
        at_once = steps_ahead(trainer.device)
        log = TrainLog("finished", trainer.step, (), 0.0)
        with sharing(trainer.device) as look:
            while log.status == "finished" and trainer.step < until_step:
                log = trainer.run(self._batches, min(until_step, trainer.step + at_once))
                losses += log.losses
                look()
                try:
                    on_pause(trainer)
                except Stopped:
                    self.save()
                    raise
                self._save_in_time()
        return TrainLog(log.status, log.step, tuple(losses), time.perf_counter() - start)

    def _save_in_time(self) -> None:
        if time.monotonic() - self._saved > SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        """Save the state, if there is a file for it."""
        if self._checkpoint is not None:
            save_checkpoint(self._checkpoint, self.trainer.state_dict())
        self._saved = time.monotonic()


def fit(
    network: Network,
    recipe: Recipe,
    split: Split,
    *,
    device: torch.device,
    seed: int,
    checkpoint: Path | None = None,
    on_pause: Callable[[Trainer], object] = lambda trainer: None,
) -> tuple[Trainer, TrainLog]:
    """Train `network` on `split` for `recipe.steps` steps, as `Fitting.run_ahead` does."""
    fitting = Fitting(network, recipe, split, device=device, seed=seed, checkpoint=checkpoint)
    log = fitting.run_ahead(recipe.steps, on_pause)
    return fitting.trainer, log
