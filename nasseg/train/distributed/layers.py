"""Layers that see the whole batch although each process has a part of it: batch norm and dropout."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from nasseg.train.distributed.group import Group


def see_whole_batches(network: nn.Module, group: Group) -> None:
    """Replace batch norms and dropouts by layers that compute what they would for the batches of all processes.

    Parameters and buffers stay the same tensors, under the same names.
    """
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            replacement: nn.Module = _batch_norm(module, group)
        elif isinstance(module, nn.Dropout):
            replacement = DropoutOfPart(module, group)
        else:
            continue
        network.set_submodule(name, replacement)


def _total(values: Tensor) -> Tensor:
    """Add up a tensor over all processes; its gradient is the sum of theirs."""
    return _Sum.apply(values)  # type: ignore[no-any-return, no-untyped-call]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes on a processor, for which PyTorch has none.

    In float32, in two passes: the mean first, then the variance around it. Where a channel has a single value in all,
    running statistics take its place, as in `BatchNorm`.
    """

    processes = 1

    def forward(self, input: Tensor) -> Tensor:
        """Normalise this process's part, (N, C, H, W), by the statistics of all parts."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        count = input.shape[0] * input.shape[2] * input.shape[3] * self.processes
        if not self.training or count == 1:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        x = input.float()
        mean = _total(x.sum(dim=(0, 2, 3))) / count
        centred = x - mean[:, None, None]
        variance = _total(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        output: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return output.to(input.dtype)


class DropoutOfPart(nn.Module):
    """Dropout whose noise is this process's rows of what would be drawn for the whole batch."""

    def __init__(self, dropout: nn.Dropout, group: Group) -> None:
        super().__init__()
        self._dropout, self._group = dropout, group

    def forward(self, input: Tensor) -> Tensor:
        """Drop values of this process's part, (N, C, H, W)."""
        if not self.training:
            return input
        whole = torch.ones_like(torch.cat([input.detach()] * self._group.size))  # in the input's memory format
        part: Tensor = input * self._dropout(whole).chunk(self._group.size)[self._group.rank]
        return part


def _batch_norm(module: nn.BatchNorm2d, group: Group) -> nn.Module:
    if module.weight.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-any-return, no-untyped-call]
    synced = SyncedBatchNorm(module.num_features, eps=module.eps, momentum=module.momentum)
    synced.processes = group.size
    synced.train(module.training)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        setattr(synced, name, tensor)
    return synced
