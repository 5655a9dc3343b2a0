"""The forward pass of a training, alone or in a group that adds up the gradients."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nasseg.network import Network
from nasseg.train.distributed.group import Group


class Forward:
    """A network's outputs by name; in a group, a backward pass leaves the gradients averaged over all processes."""

    def __init__(self, network: Network, group: Group, compiled: bool = False) -> None:
        outputs = _Outputs(network)
        if compiled:
            outputs.compile()
        device = next(network.parameters()).device
        devices = [device] if device.type == "cuda" else None
        self._shared = None if group.size == 1 else DistributedDataParallel(outputs, devices)
        self._outputs: nn.Module = self._shared or outputs

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute all outputs from the inputs by name."""
        return self._outputs(inputs)  # type: ignore[no-any-return]

    def adding_up(self, is_last: bool) -> AbstractContextManager[None]:
        """Make the context of one of the passes whose gradients add up; those of the group are averaged in the last."""
        return nullcontext() if is_last or self._shared is None else self._shared.no_sync()


class _Outputs(nn.Module):
    """`Network.outputs` as a module's forward pass, which PyTorch's wrappers take."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute all outputs."""
        return self.network.outputs(inputs)
