"""A continuous relaxation of a space, which the space provides so that it can be searched by gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn

from nasseg.ops import Op
from nasseg.space import Choice
from nasseg.space.weighted_graph import WeightedGraph

C_co = TypeVar("C_co", bound=Choice, covariant=True)
Shape = tuple[int, int, int]
"""(C, H, W)."""
OpCost = Callable[[Op, Sequence[Shape]], float]
"""The cost of an operator on inputs of these shapes: multiply–adds, or milliseconds from a table."""


class RelaxationOptions(BaseModel):
    """Options that save a relaxation's memory.

    `partial_channels` K puts 1 / K of the channels through the operators and the rest past them (PC-DARTS, arXiv
    1907.05737, §3.1); `checkpoint_activations` recomputes a cell in the backward pass instead of keeping its maps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    partial_channels: PositiveInt = 1
    checkpoint_activations: bool = False


class Relaxation(nn.Module, ABC, Generic[C_co]):
    """A network that contains all networks of a space, each decision a mixture weighted by architecture parameters."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (N, classes, H, W) of (N, 3, H, W) images."""

    @abstractmethod
    def architecture_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the mixtures (α, β); all other parameters are weights."""

    @abstractmethod
    def price(self, cost: OpCost, size: tuple[int, int], fixed: float = 0.0) -> None:
        """Set the cost of each operator for images of `size` (height, width); `fixed` is added for every network."""

    @abstractmethod
    def expected_cost(self) -> Tensor:
        """Compute the cost of the whole network under the mixtures, a scalar with gradients; call `price` first."""

    @abstractmethod
    def decode(self) -> C_co:
        """Return the most likely point of the space."""

    @abstractmethod
    def graphs(self) -> tuple[WeightedGraph, ...]:
        """Draw the mixtures' weights."""


@runtime_checkable
class Relaxable(Protocol[C_co]):
    """A space that can be searched by gradient."""

    def relaxation(self, classes: int, options: RelaxationOptions) -> Relaxation[C_co]:
        """Build the relaxation, with weights drawn from PyTorch's global generator."""
