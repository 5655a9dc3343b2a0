"""The processes that train one network together."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """The processes that train together, of which this one is number `rank`; by default this process is alone."""

    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls) -> Group:
        """Return the group that this process has joined through `torch.distributed`."""
        return cls(dist.get_rank(), dist.get_world_size())

    def sum(self, values: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place, and return it; each process has the sum, bit for bit."""
        if self.size > 1:
            dist.all_reduce(values)
        return values


ALONE = Group()
