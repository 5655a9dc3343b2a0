"""The one training loop, both for trials on cached features and for training on images."""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nasseg.train.ahead.replays import Replays
from nasseg.train.ahead.snapshot import Snapshot
from nasseg.train.detail_head import add_detail_head
from nasseg.train.device import autocast, mixed_precision_dtype, place, seeded, sharing, steps_ahead, to_device
from nasseg.train.distributed.forward import Forward
from nasseg.train.distributed.group import ALONE, Group
from nasseg.train.distributed.layers import see_whole_batches
from nasseg.train.losses import Loss, cross_entropy, detail_loss, distillation, ohem_cross_entropy, pixel_weights
from nasseg.train.optimizer import make_optimizer
from nasseg.train.recipe import Recipe

if TYPE_CHECKING:
    from nasseg.data.batches import Batch
    from nasseg.network import Network

logger = logging.getLogger(__name__)

TINY = torch.finfo(torch.float32).tiny
MOST_BYTES_AHEAD = 512 << 20
"""Of batches that are kept until the losses of their steps are read."""
LEAST_REPLAYS = 100
"""Steps that must be left for a recording, which takes as long as some of them, to pay."""


@dataclass(frozen=True)
class TrainLog:
    """The result of `Trainer.run`: it ended before step index `step`, after one finite loss per step."""

    status: Literal["finished", "nonfinite"]
    step: int
    losses: tuple[float, ...]
    seconds: float


class Trainer:
    """The training of a network by a recipe, with an exponential moving average of the network.

    With a detail head by the recipe, `network` is a copy with that head. The average is of the network as it was given.

    All randomness in a step depends on (seed, step) alone, and `state_dict` holds everything else, so on the CPU a
    resumed run equals an uninterrupted one bit for bit.

    The gradients of a batch are added up over as many parts of it as the recipe says, and over more where the device's
    memory does not suffice, halves first. The step is then that of the whole batch but for batch norms, which see a
    part at a time, and for hard pixels (`ohem_cross_entropy`) and the detail loss, which are those of each part.

    In a group of processes, `run` takes this one's part of each batch, and all take the step of the whole batch, batch
    norms and dropout included; again but for hard pixels and the detail loss. Losses are those of the whole batch.

    With a `teacher`, a network of the same classes, the network also learns its class probabilities (`distillation`).

    Source of the average's warm-up, min(decay, (1 + t) / (10 + t)): TensorFlow's ExponentialMovingAverage. Running
    statistics of batch norms are averaged along with the weights they belong to.
    """

    def __init__(
        self,
        network: "Network",
        recipe: Recipe,
        total_steps: int,
        device: torch.device,
        seed: int,
        ignore_index: int,
        group: Group = ALONE,
        teacher: "Network | None" = None,
    ) -> None:
        self.recipe = recipe
        self.total_steps = total_steps
        self.device = device
        self.seed = seed
        self.ignore_index = ignore_index
        self.step = 0
        place(network, device)
        self._average: Network = copy.deepcopy(network).eval().requires_grad_(False)
        self.network = add_detail_head(network, seed) if recipe.detail_head else network
        place(self.network, device)
        self._group = group
        if group.size > 1:
            see_whole_batches(self.network, group)
        self._forward = Forward(self.network, group, recipe.compile)
        self._teacher = teacher
        if teacher is not None:
            place(teacher.eval(), device)
        self._parameters = list(self.network.parameters())
        averages, latest = _floating(self._average), _floating(self.network)
        self._averages, self._latest = list(averages.values()), [latest[name] for name in averages]
        self._optimizer = make_optimizer(self.network, recipe)
        self._learning_rates: list[float] = [group["lr"] for group in self._optimizer.param_groups]
        half = recipe.amp and mixed_precision_dtype(device) == torch.float16
        self._scaler = torch.amp.GradScaler(device.type, enabled=half)
        weights = recipe.class_weights
        self._class_weights = None if weights is None else torch.tensor(weights, device=device)
        self._loss = _main_loss(recipe, self._class_weights)
        self._parts = recipe.accumulate
        self._ahead = 1 if half or group.size > 1 else steps_ahead(device)
        self._before = Snapshot()
        self._replays = Replays(self._parameters, device)

    def run(
        self, batches: "Iterable[Batch]", until_step: int, on_step: Callable[[int, float, float], object] | None = None
    ) -> TrainLog:
        """Train on `batches`, the first of which is for the current step, until `step` is `until_step`.

        `on_step` takes the index of each finished step, its loss and the backbone's learning rate, so a GPU is waited
        for at each step, and not only after every `steps_ahead`. It may raise to stop: the trainer is then between two
        steps, and its state can be saved.

        A loss or gradient that is not finite ends the run with status `nonfinite`; the weights are then those before
        that step, and the running statistics, which it may have spoilt, are reset to their averages.

        Raises `ValueError` if there are too few batches, or if `until_step` exceeds `total_steps`.
        """
        if until_step > self.total_steps:
            raise ValueError(f"until_step is {until_step}, but the schedule ends at total_steps = {self.total_steps}")
        start, losses, failed = time.perf_counter(), list[float](), False
        steps = islice(batches, max(0, until_step - self.step))
        self.network.train()
        with sharing(self.device) as look:
            while not failed and self.step < until_step:
                taken, failed = self._advance(steps) if on_step is None else self._one_by_one(islice(steps, 1))
                if not taken and not failed:
                    raise ValueError(
                        f"The batches ended at step {self.step}, but training continues to step {until_step}"
                    )
                losses += taken
                if on_step is not None and taken:
                    on_step(self.step - 1, taken[0], self._optimizer.param_groups[0]["lr"])
                look()
        status: Literal["finished", "nonfinite"] = "nonfinite" if failed else "finished"
        return TrainLog(status, self.step, tuple(losses), time.perf_counter() - start)

    def ema_network(self) -> "Network":
        """Return the averaged network in evaluation mode: the trainer's own, which training keeps changing."""
        self._replays.forget()
        return self._average

    def state_dict(self) -> dict[str, Any]:
        """Return all that a later `Trainer` of the same network, recipe, length and seed needs to continue."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        if not 0 <= state["step"] <= self.total_steps:
            raise ValueError(f"step is {state['step']}, but must be from 0 to {self.total_steps}")
        self.step = int(state["step"])
        self.network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

    def _advance(self, batches: "Iterator[Batch]") -> tuple[list[float], bool]:
        """Take the next steps; returns the loss of each, and whether the one after them is not finite.

        A device that runs ahead takes several before their losses are read. If one is not finite, all of them are
        undone and taken again one by one, up to that one.
        """
        if self._ahead == 1 or not self._optimizer.state:
            return self._one_by_one(islice(batches, 1))
        start, kept, losses, size = self.step, list["Batch"](), list[Tensor](), 0
        self._before.take(self._state())
        for batch in islice(batches, self._ahead):
            kept.append(batch)
            losses.append(self._gradients_ahead(batch))
            self._update()
            size += sum(tensor.nbytes for tensor in (*batch.inputs.values(), batch.masks))
            if size > MOST_BYTES_AHEAD:
                break
        read = torch.stack(losses).tolist() if losses else []
        if all(map(math.isfinite, read)):
            return read, False
        self._before.put_back()
        self.step = start
        return self._one_by_one(kept)

    def _one_by_one(self, batches: "Iterable[Batch]") -> tuple[list[float], bool]:
        """Take steps as `_advance` does, each only if its loss and its gradients are finite."""
        taken: list[float] = []
        for batch in batches:
            loss = self._gradients(batch).item()
            if not math.isfinite(loss):
                self._optimizer.zero_grad()
                self._restore_running_statistics()
                return taken, True
            self._update()
            taken.append(loss)
        return taken, False

    def _update(self) -> None:
        """Take the step whose gradients are there."""
        factor = self.recipe.learning_rate_factor(self.step, self.total_steps)
        for group, learning_rate in zip(self._optimizer.param_groups, self._learning_rates, strict=True):
            group["lr"] = learning_rate * factor
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        self._update_average()
        self.step += 1

    def _state(self) -> list[Tensor]:
        """All tensors that a step changes, besides gradients."""
        moments = (value for state in self._optimizer.state.values() for value in state.values())
        network = (*self._parameters, *self.network.buffers())
        return [*network, *self._averages, *(value for value in moments if isinstance(value, Tensor))]

    def _gradients(self, batch: "Batch") -> Tensor:
        """Compute the gradients of a batch, and return its loss, which is not finite if one of them is not.

        A gradient scaler skips a step whose gradients overflow and tries a smaller scale, so there the loss alone
        counts.
        """
        loss = self._gradients_in_parts(batch)
        if self._scaler.is_enabled():
            self._scaler.unscale_(self._optimizer)
            return loss
        return self._with_gradients(loss)

    def _gradients_ahead(self, batch: "Batch") -> Tensor:
        """Do the same by replaying a step if that is faster and can be done."""
        if self._replays.untried and self.total_steps - self.step >= LEAST_REPLAYS:
            self._replays.begin(batch, self._whole_gradients, self._state(), self._seeded)
        if not self._replays.fit(batch):
            return self._gradients(batch)
        with self._seeded():
            return self._replays.loss(batch)

    def _whole_gradients(self, batch: "Batch") -> Tensor:
        """Do the same in as many parts as memory has sufficed for."""
        return self._with_gradients(self._gradients_of_parts(batch))

    def _with_gradients(self, loss: Tensor) -> Tensor:
        return loss + 0 * get_total_norm([p.grad for p in self._parameters if p.grad is not None])

    def _seeded(self) -> AbstractContextManager[None]:
        return seeded(self.device, self.seed, self.step)

    def _gradients_in_parts(self, batch: "Batch") -> Tensor:
        """Compute the gradients of a batch, in more parts from now on if memory does not suffice; return its loss."""
        while True:
            try:
                with self._seeded():
                    return self._gradients_of_parts(batch)
            except torch.OutOfMemoryError:
                # A batch norm needs two images, as of one whose map is a single pixel it has one value. In a group,
                # the others are waiting for these gradients.
                if len(batch.masks) < 4 * self._parts or self._group.size > 1:
                    raise
                self._parts *= 2
                images = len(batch.masks) // self._parts
                logger.warning("out of memory on %s: gradients are added up over %d images", self.device, images)
            self._optimizer.zero_grad()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _gradients_of_parts(self, batch: "Batch") -> Tensor:
        masks, losses = batch.masks.to(self.device, non_blocking=True), []
        is_whole = self._parts == self._group.size == 1
        whole = None if is_whole else self._group.sum(self._weights(masks)).clamp(min=TINY)
        for number, (inputs, part) in enumerate(_parts(to_device(batch.inputs, self.device), masks, self._parts)):
            with self._forward.adding_up(is_last=number == self._parts - 1):
                with autocast(self.device, self.recipe.amp):
                    outputs = self._forward(inputs)
                terms = torch.stack([self._total_loss(outputs, part), self._distillation(outputs, inputs, part)])
                loss = (terms if whole is None else terms * self._weights(part) / whole).sum()
                # The gradients of a group are averaged, but its losses add up.
                self._scaler.scale(loss * self._group.size).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return self._group.sum(torch.stack(losses).sum())

    def _weights(self, masks: Tensor) -> Tensor:
        """Weigh a part of a batch as its mean loss, and its divergence from a teacher, count in the whole one's."""
        weights = pixel_weights(masks, self.ignore_index, self._class_weights, self.recipe.boundary_weight)
        return torch.stack([weights.sum(), (masks != self.ignore_index).float().sum()])

    def _total_loss(self, outputs: dict[str, Tensor], masks: Tensor) -> Tensor:
        losses = []
        for name, logits in outputs.items():
            if name.startswith("detail"):
                losses.append(self.recipe.detail_weight * detail_loss(logits, masks, self.ignore_index))
            elif name.startswith("auxiliary"):
                losses.append(self.recipe.auxiliary_weight * self._loss(logits, masks, self.ignore_index))
            else:
                losses.append(self._loss(logits, masks, self.ignore_index))
        return torch.stack(losses).sum()

    def _distillation(self, outputs: dict[str, Tensor], inputs: dict[str, Tensor], masks: Tensor) -> Tensor:
        if self._teacher is None:
            return torch.zeros((), device=self.device)
        with torch.no_grad(), autocast(self.device, self.recipe.amp):
            taught = next(iter(self._teacher.outputs(inputs).values()))
        logits = next(iter(outputs.values()))
        return self.recipe.teacher_weight * distillation(logits, taught, masks, self.ignore_index)

    def _update_average(self) -> None:
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(self._averages, self._latest, self.step)

    def _restore_running_statistics(self) -> None:
        latest = dict(self.network.named_buffers())
        for name, buffer in self._average.named_buffers():
            if buffer.is_floating_point():
                latest[name].copy_(buffer)


def _parts(inputs: dict[str, Tensor], masks: Tensor, parts: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Split a batch; an input of another length than the masks, whose size alone counts, goes with every part."""
    split = {
        name: value.tensor_split(parts) if len(value) == len(masks) else (value,) * parts
        for name, value in inputs.items()
    }
    for number, part in enumerate(masks.tensor_split(parts)):
        yield {name: values[number] for name, values in split.items()}, part


def _main_loss(recipe: Recipe, class_weights: Tensor | None) -> Loss:
    if recipe.loss == "ohem":
        return partial(ohem_cross_entropy, boundary_weight=recipe.boundary_weight)
    return partial(cross_entropy, class_weights=class_weights, boundary_weight=recipe.boundary_weight)


def _floating(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights and running statistics by name; not the counters of steps."""
    tensors = (*network.named_parameters(), *network.named_buffers())
    return {name: tensor for name, tensor in tensors if tensor.is_floating_point()}
