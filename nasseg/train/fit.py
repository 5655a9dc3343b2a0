"""Training end to end on images, for a search's finalists and for retraining."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from nasseg.data import Split, training_batches
from nasseg.graph import Architecture
from nasseg.network import Network
from nasseg.train.checkpoint import restore, save_checkpoint
from nasseg.train.recipe import Recipe
from nasseg.train.trainer import Trainer, TrainLog

SAVE_EVERY_SECONDS = 60.0


class Stopped(Exception):  # noqa: N818 - no error: the user asked for it
    """A request, raised by an `on_step`, to stop training between two steps."""


def seeded_network(architecture: Architecture, seed: int) -> Network:
    """Build a network whose initial weights depend on `seed` alone; the global generator is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Network(architecture)


def fit(
    network: Network,
    recipe: Recipe,
    split: Split,
    *,
    device: torch.device,
    seed: int,
    workers: int = 0,
    checkpoint: Path | None = None,
    on_step: Callable[[Trainer, float, float], object] | None = None,
) -> tuple[Trainer, TrainLog]:
    """Train `network` on `split` for `recipe.steps` steps.

    With `checkpoint`, the state is saved there from time to time and when `on_step` raises `Stopped`, and a run that
    finds the file resumes from it exactly. `on_step` takes the trainer, the step's loss and its learning rate.
    """
    trainer = Trainer(network, recipe, recipe.steps, device, seed, split.ignore_index)
    if checkpoint is not None and checkpoint.exists():
        restore(trainer, checkpoint, device)
    batches = training_batches(split, recipe.augment, recipe.batch_size, seed, trainer.step, device, workers)
    saved = time.monotonic()

    def after_step(step: int, loss: float, learning_rate: float) -> None:
        nonlocal saved
        if on_step is not None:
            on_step(trainer, loss, learning_rate)
        if checkpoint is not None and time.monotonic() - saved > SAVE_EVERY_SECONDS:
            save_checkpoint(checkpoint, trainer.state_dict())
            saved = time.monotonic()

    try:
        log = trainer.run(batches, recipe.steps, after_step)
    except Stopped:
        if checkpoint is not None:
            save_checkpoint(checkpoint, trainer.state_dict())
        raise
    return trainer, log
