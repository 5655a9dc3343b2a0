"""A search space made continuous: what a space provides so that it can be searched by gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn

from nasseg.ops import Op
from nasseg.space import Choice
from nasseg.space.weighted_graph import WeightedGraph

C = TypeVar("C", bound=Choice)
Shape = tuple[int, int, int]
"""(C, H, W)."""
OpCost = Callable[[Op, Sequence[Shape]], float]
"""The cost of an operator on inputs of these shapes: multiply–adds, or milliseconds from a table."""


class RelaxationOptions(BaseModel):
    """Ways in which a relaxation fits into memory.

    `partial_channels` K puts 1 / K of the channels through the operators and the rest past them (PC-DARTS, arXiv
    1907.05737, §3.1); `checkpoint_activations` computes a cell again in the backward pass instead of keeping its maps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    partial_channels: PositiveInt = 1
    checkpoint_activations: bool = False


class Relaxation(nn.Module, ABC, Generic[C]):
    """One network that holds all networks of a space, each decision a mixture weighted by architecture parameters."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes, H, W) of (N, 3, H, W) images."""

    @abstractmethod
    def architecture_parameters(self) -> list[nn.Parameter]:
        """The parameters of the mixtures (α, β); all other parameters are weights."""

    @abstractmethod
    def price(self, cost: OpCost, size: tuple[int, int], fixed: float = 0.0) -> None:
        """Fix what each operator costs for images of `size` (height, width), and any network beside its operators."""

    @abstractmethod
    def expected_cost(self) -> Tensor:
        """The cost of the whole network under the mixtures, a scalar with gradients; needs `price` before it."""

    @abstractmethod
    def decode(self) -> C:
        """The most likely point of the space."""

    @abstractmethod
    def graphs(self) -> tuple[WeightedGraph, ...]:
        """The mixtures' weights as drawings."""


@runtime_checkable
class Relaxable(Protocol[C]):
    """A space that can be searched by gradient."""

    def relaxation(self, classes: int, options: RelaxationOptions) -> Relaxation[C]:
        """The space made continuous, with weights drawn from PyTorch's global generator."""
