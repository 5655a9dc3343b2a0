"""CUDA graphs: all kernels of a step's gradients are started at once, and no longer one by one from Python."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from nasseg.train.ahead.snapshot import Snapshot

if TYPE_CHECKING:
    from nasseg.data.batches import Batch

logger = logging.getLogger(__name__)

Recorder = Callable[[Callable[[], Tensor], torch.device], tuple[Callable[[], object], Tensor]]
"""Takes what computes a result on a device; returns what computes it again into the same tensor, and that tensor."""

FARTHEST = 0.02
"""How far a replayed gradient may be from a computed one, of its norm: sums in another order, in half precision."""


def record_cuda_graph(compute: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], object], Tensor]:
    """Record what `compute` starts on a CUDA device. Other threads may go on with their work there."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            result = compute()
    return graph.replay, result


class Replays:
    """A step's gradients by replaying a recorded one, for batches of the same shapes.

    The first replay is compared with the computation that it stands for. If it deviates or cannot be recorded, nothing
    is replayed, and a warning says so.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], device: torch.device, record: Recorder = record_cuda_graph
    ) -> None:
        self._parameters, self._device, self._record = parameters, device, record
        self._refused = False
        self.forget()

    def forget(self) -> None:
        """Free the memory of what was recorded; it can begin again."""
        self._batch: Batch | None = None
        self._gradients: list[Tensor | None] = []
        self._replay: Callable[[], object] = lambda: None
        self._loss = torch.zeros(())

    @property
    def untried(self) -> bool:
        """Whether nothing is recorded, but could be."""
        return self._batch is None and not self._refused

    def begin(
        self,
        batch: Batch,
        compute: Callable[[Batch], Tensor],
        state: Sequence[Tensor],
        seeded: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Record how the gradients of such batches are computed.

        `compute` leaves those of a batch with the parameters and returns a loss on the device, and waits for neither.
        What it changes besides is `state`, which is as before in the end; it draws random numbers within `seeded`.
        """
        before = Snapshot()
        before.take(state)
        try:
            kept = type(batch)(
                {name: self._copy(value) for name, value in batch.inputs.items()}, self._copy(batch.masks)
            )
            with seeded():
                expected = compute(kept)
            gradients = self._take_gradients()
            before.put_back()
            with seeded():
                self._replay, self._loss = self._record(lambda: compute(kept), self._device)
            self._gradients = [parameter.grad for parameter in self._parameters]
            with seeded():
                self._replay()
            _compare("the loss", [expected], [self._loss])
            _compare("the gradient", gradients, self._gradients)
            self._batch = kept
        except Exception as error:  # whatever a driver raises, gradients can be computed without it
            self._refused = True
            self.forget()
            if not isinstance(error, torch.OutOfMemoryError):
                logger.warning("steps are not replayed on %s: %s: %s", self._device, type(error).__name__, error)
        finally:
            self._take_gradients()
            before.put_back()

    def fit(self, batch: Batch) -> bool:
        """Whether the gradients of this batch can be replayed."""
        return self._batch is not None and _kind(batch) == _kind(self._batch)

    def loss(self, batch: Batch) -> Tensor:
        """Leave the gradients of a batch that fits with the parameters, and return its loss."""
        assert self._batch is not None, "nothing was recorded"
        for kept, given in zip(_tensors(self._batch), _tensors(batch), strict=True):
            kept.copy_(given, non_blocking=True)
        self._replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._loss.clone()

    def _copy(self, tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device=self._device).copy_(tensor)

    def _take_gradients(self) -> list[Tensor | None]:
        taken = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        return taken


def _compare(what: str, computed: Sequence[Tensor | None], replayed: Sequence[Tensor | None]) -> None:
    """Raise `ArithmeticError` if replayed tensors are far from computed ones; where these overflow, anything goes."""
    pairs = list(zip(computed, replayed, strict=True))
    if any((one is None) != (other is None) for one, other in pairs):
        raise ArithmeticError(f"{what} is of other parameters")
    both = [(one, other) for one, other in pairs if one is not None and other is not None]
    distance = get_total_norm([one - other for one, other in both]).item()
    norm = get_total_norm([one for one, _ in both]).item()
    if math.isfinite(norm) and not distance <= FARTHEST * norm:
        raise ArithmeticError(f"{what} deviates by {distance:.2g} of {norm:.2g}")


def _tensors(batch: Batch) -> list[Tensor]:
    return [*batch.inputs.values(), batch.masks]


def _kind(batch: Batch) -> list[object]:
    return [*batch.inputs, *((tensor.shape, tensor.dtype) for tensor in _tensors(batch))]
