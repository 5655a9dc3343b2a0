"""A stand-in for what only a GPU has."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class FakeGraph:
    """In place of a CUDA graph: computes again, into the tensors of the recording."""

    def __init__(self) -> None:
        self.parameters: list[nn.Parameter] = []
        self.recordings = self.replays = 0
        self.error: Exception | None = None
        self.factor = 1.0

    def record(self, compute: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], object], Tensor]:
        self.recordings += 1
        if self.error is not None:
            raise self.error
        loss = compute()
        kept = [parameter.grad for parameter in self.parameters]

        def replay() -> None:
            self.replays += 1
            for parameter in self.parameters:
                parameter.grad = None
            loss.copy_(compute())
            for gradient, parameter in zip(kept, self.parameters, strict=True):
                if gradient is not None and parameter.grad is not None:
                    gradient.copy_(parameter.grad * self.factor)
                parameter.grad = None

        return replay, loss
