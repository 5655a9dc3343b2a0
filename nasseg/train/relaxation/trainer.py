"""Training a relaxation: weights and architecture parameters in turns, each on its own half of the images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn
from torch.nn.utils import get_total_norm

from nasseg.data import Augment, Batch, Split, training_batches
from nasseg.data.subset import halves
from nasseg.graph import write_atomically
from nasseg.space.relaxation import Relaxable, Relaxation, RelaxationOptions
from nasseg.space.space import C, Choice
from nasseg.space.weighted_graph import WeightedGraph
from nasseg.train.checkpoint import restore, save_checkpoint
from nasseg.train.device import autocast, mixed_precision_dtype, place, seeded, sharing, to_device
from nasseg.train.fit import SAVE_EVERY_SECONDS, Stopped
from nasseg.train.losses import cross_entropy
from nasseg.train.relaxation.recipe import RelaxationRecipe

SNAPSHOT_EVERY_SECONDS = 10.0


class RelaxationSnapshot(BaseModel):
    """The state of a relaxation in training: the last losses, and the choice it would decode to.

    Both losses are mean cross entropies, of the last batch of their half. `choice` is the space's choice, as JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    step: int
    steps: int
    train_loss: float | None
    architecture_loss: float | None
    expected_cost: float
    graphs: tuple[WeightedGraph, ...]
    choice: dict[str, object]


class RelaxationTrainer:
    """The training of a relaxation, whose costs `price` has fixed before, by first-order alternation.

    Each step updates the weights on a batch of one half of the images and, from `first_architecture_step` on, the
    architecture parameters on a batch of the other half. The latter minimise cross entropy + |cost_weight| ·
    log(expected cost): the search's objective mIoU · cost ** cost_weight in logarithms, without the constant cost of
    the reference.

    All randomness in a step depends on (seed, step) alone, and `state_dict` holds everything else, so on the CPU a
    resumed run equals an uninterrupted one bit for bit.

    Source: Auto-DeepLab, arXiv 1901.02985, §4.2, without the second-order term.
    """

    def __init__(
        self, relaxation: Relaxation[Choice], recipe: RelaxationRecipe, split: Split, device: torch.device, seed: int
    ) -> None:
        self.relaxation, self.recipe, self.device, self.seed = relaxation, recipe, device, seed
        self.step = 0
        self.train_loss: float | None = None
        self.architecture_loss: float | None = None
        self._halves = halves(split, seed)
        # Two optimizers would share one gradient scaler, which float16 needs.
        self._amp = recipe.amp and mixed_precision_dtype(device) != torch.float16
        place(relaxation, device)
        self._architecture = relaxation.architecture_parameters()
        chosen = {id(parameter) for parameter in self._architecture}
        self._weights = [parameter for parameter in relaxation.parameters() if id(parameter) not in chosen]
        self._weight_optimizer = torch.optim.SGD(
            self._weights,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self._architecture_optimizer = torch.optim.Adam(
            self._architecture,
            lr=recipe.architecture_learning_rate,
            weight_decay=recipe.architecture_weight_decay,
            fused=True,
        )

    def run(self, until_step: int, on_step: Callable[[], object] = lambda: None) -> Literal["finished", "nonfinite"]:
        """Train until `step` is `until_step`; `on_step` is called after each step.

        A loss or gradient that is not finite ends the run with `nonfinite`, before its update.
        """
        recipe = self.recipe
        weight_batches = self._batches(0, self.step)
        architecture_batches = self._batches(1, max(self.step, recipe.first_architecture_step))
        self.relaxation.train()
        while self.step < until_step:
            for group in self._weight_optimizer.param_groups:
                group["lr"] = recipe.learning_rate_at(self.step)
            with seeded(self.device, self.seed, self.step):
                losses = [self.update_weights(next(weight_batches))]
                if self.step >= recipe.first_architecture_step:
                    losses.append(self.update_architecture(next(architecture_batches)))
            if not all(map(math.isfinite, losses)):
                return "nonfinite"
            self.train_loss, *rest = losses
            self.architecture_loss = rest[0] if rest else None
            self.step += 1
            on_step()
        return "finished"

    def snapshot(self) -> RelaxationSnapshot:
        """Describe the current state of the training."""
        with torch.no_grad():
            return RelaxationSnapshot(
                seed=self.seed,
                step=self.step,
                steps=self.recipe.steps,
                train_loss=self.train_loss,
                architecture_loss=self.architecture_loss,
                expected_cost=self.relaxation.expected_cost().item(),
                graphs=self.relaxation.graphs(),
                choice=self.relaxation.decode().model_dump(mode="json"),
            )

    def state_dict(self) -> dict[str, Any]:
        """Return all that a later trainer of the same relaxation, recipe, split and seed needs to continue."""
        return {
            "step": self.step,
            "losses": (self.train_loss, self.architecture_loss),
            "relaxation": self.relaxation.state_dict(),
            "weight_optimizer": self._weight_optimizer.state_dict(),
            "architecture_optimizer": self._architecture_optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.step = state["step"]
        self.train_loss, self.architecture_loss = state["losses"]
        self.relaxation.load_state_dict(state["relaxation"])
        self._weight_optimizer.load_state_dict(state["weight_optimizer"])
        self._architecture_optimizer.load_state_dict(state["architecture_optimizer"])

    def _batches(self, half: int, start_step: int) -> Iterator[Batch]:
        recipe = self.recipe
        augment = Augment(crop=recipe.crop, scale=recipe.scale, flip=recipe.flip, colour=recipe.colour)
        return training_batches(self._halves[half], augment, recipe.batch_size, self.seed, start_step, self.device)

    def update_weights(self, batch: Batch) -> float:
        """Take a step of the weights; its loss, not finite if it was not taken."""
        require_gradients(self._weights, of=self.relaxation)
        loss = self._cross_entropy(batch)
        return loss.item() if _descend(loss, self._weights, self._weight_optimizer) else math.nan

    def update_architecture(self, batch: Batch) -> float:
        """Take a step of the architecture parameters; its loss, not finite if it was not taken."""
        require_gradients(self._architecture, of=self.relaxation)
        loss = objective = self._cross_entropy(batch)
        if self.recipe.cost_weight:
            objective = loss - self.recipe.cost_weight * self.relaxation.expected_cost().log()
        return loss.item() if _descend(objective, self._architecture, self._architecture_optimizer) else math.nan

    def _cross_entropy(self, batch: Batch) -> torch.Tensor:
        with autocast(self.device, self._amp):
            logits = self.relaxation(to_device(batch.inputs, self.device)["image"])
        return cross_entropy(logits, batch.masks.to(self.device), self._halves[0].ignore_index)


def require_gradients(parameters: list[nn.Parameter], of: nn.Module) -> None:
    """Give these parameters gradients and no others, which saves the time and memory of the others' gradients."""
    of.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)


def _descend(loss: torch.Tensor, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> bool:
    """Take a step down the loss's gradient, unless either is not finite; returns whether it was taken."""
    loss.backward()  # type: ignore[no-untyped-call]
    norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    finite = math.isfinite((loss + norm).item())
    if finite:
        optimizer.step()
    optimizer.zero_grad()
    return finite


def seeded_relaxation(space: Relaxable[C], classes: int, options: RelaxationOptions, seed: int) -> Relaxation[C]:
    """Build a relaxation whose initial parameters depend on `seed` alone; the global generator is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return space.relaxation(classes, options)


def fit_relaxation(
    trainer: RelaxationTrainer,
    until_step: int,
    checkpoint: Path,
    snapshot: Path,
    on_step: Callable[[], object] = lambda: None,
) -> Literal["finished", "nonfinite"]:
    """Train until `until_step`, resuming from `checkpoint` if it exists.

    The state is saved to `checkpoint`, and a `RelaxationSnapshot` to `snapshot`, from time to time and at the end, each
    whole or not at all. `on_step` may raise `Stopped`; the state is then saved.
    """
    if checkpoint.exists():
        restore(trainer, checkpoint, trainer.device)
    saved, shown = time.monotonic(), -math.inf

    def show() -> None:
        write_atomically(snapshot, trainer.snapshot().model_dump_json())

    def after_step() -> None:
        nonlocal saved, shown
        if time.monotonic() - saved > SAVE_EVERY_SECONDS:
            save_checkpoint(checkpoint, trainer.state_dict())
            saved = time.monotonic()
        if time.monotonic() - shown > SNAPSHOT_EVERY_SECONDS:
            show()
            shown = time.monotonic()
        look()
        on_step()

    with sharing(trainer.device) as look:
        try:
            status = trainer.run(until_step, after_step)
        except Stopped:
            save_checkpoint(checkpoint, trainer.state_dict())
            raise
    if status == "finished":
        save_checkpoint(checkpoint, trainer.state_dict())
    show()
    return status
