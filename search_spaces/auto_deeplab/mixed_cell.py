"""A cell whose every edge is a mixture of all operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import channel_shuffle, max_pool2d
from torch.nn.utils import skip_init

from nasseg.network import initialise
from nasseg.ops import Op
from nasseg.ops.layers import BatchNorm
from search_spaces.auto_deeplab.operators import OPERATORS, OperatorName, match_channels, operator

WEIGHED = tuple(name for name in OPERATORS if name != "zero")
"""The operators that contribute to a mixture; zero takes its share of the weight and adds nothing."""


class MixedCell(nn.Module):
    """Blocks that sum all operators on all states before them, weighted by α (equations 1 to 4).

    All edges out of a state with the same operator are computed at once: their convolutions are merged into one grouped
    convolution, and an operator without parameters is computed once for all of them.

    With `partial_channels` K, 1 / K of a state's channels go through the operators, the rest bypass them, and both are
    shuffled together (PC-DARTS, arXiv 1907.05737, §3.1).
    """

    def __init__(
        self,
        in_channels: int,
        before: Mapping[str, int],
        channels: int,
        blocks: int,
        *,
        strided: bool,
        partial_channels: int = 1,
    ) -> None:
        super().__init__()
        if channels % partial_channels:
            raise ValueError(
                f"partial_channels is {partial_channels}, but must divide the cell's {channels} filters: "
                "give a divisor of the space's filters"
            )
        self.blocks, self.strided, self.partial_channels = blocks, strided, partial_channels
        self.active = channels // partial_channels
        self.state0 = match_channels(channels).build([in_channels])
        self.state1 = nn.ModuleDict({name: match_channels(channels).build([c]) for name, c in before.items()})
        initialise(self)
        self.operators = nn.ModuleList(
            nn.ModuleDict({name: self._copies(name, state) for name in WEIGHED}) for state in range(blocks + 1)
        )

    def readers(self, state: int) -> range:
        """Return the blocks that read a state, in the order of their merged operators."""
        return range(max(0, state - 1), self.blocks)

    def _copies(self, name: OperatorName, state: int) -> nn.Module:
        stride = 2 if self.strided and state < 2 else 1
        ops = operator(name, self.active, stride)
        return side_by_side(_chain(ops, self.active), len(self.readers(state)))

    def forward(self, previous: Tensor, before: Mapping[str, tuple[Tensor, Tensor]], alpha: Tensor) -> Tensor:
        """Compute (N, C_in, H, W) → (N, blocks · channels, H', W'); H' is H, or ⌈H / 2⌉ in a strided cell.

        `before` holds a weight and a map (N, C, H, W) by name, `alpha` is (edges, operators) by block, then by state.
        """
        state1 = [weight * self.state1[name](x) for name, (weight, x) in before.items()]
        states = [self.state0(previous), torch.stack(state1).sum(dim=0) if len(state1) > 1 else state1[0]]
        sums: list[list[Tensor]] = [[] for _ in range(self.blocks)]
        for state in range(self.blocks + 1):
            readers = self.readers(state)
            mixed = self._mixed(state, states[state], alpha[[edge(block, state) for block in readers]])
            for block, output in zip(readers, mixed.unbind(dim=1), strict=True):
                sums[block].append(output)
            if state > 0:  # the states up to here are all that block state - 1 reads
                states.append(sum(sums[state - 1][1:], start=sums[state - 1][0]))
        return torch.cat(states[2:], dim=1)

    def _mixed(self, state: int, x: Tensor, alpha: Tensor) -> Tensor:
        """Compute (N, C, H, W) → (N, readers, C, H', W'); `alpha` is (readers, operators)."""
        active, idle = x[:, : self.active], x[:, self.active :]
        total: Tensor | None = None
        for index, name in enumerate(OPERATORS):
            if name == "zero":
                continue
            output = self.operators[state][name](active)  # type: ignore[index]
            weighed = alpha[:, index].reshape(1, -1, 1, 1, 1) * output.unflatten(1, (-1, self.active))
            total = weighed if total is None else total + weighed
        assert total is not None
        if self.partial_channels == 1:
            return total
        if self.strided and state < 2:
            idle = max_pool2d(idle, 3, stride=2, padding=1)
        readers = total.shape[1]
        both = torch.cat([total, idle.unsqueeze(1).expand(-1, readers, -1, -1, -1).to(total.dtype)], dim=2)
        shuffled: Tensor = channel_shuffle(both.flatten(0, 1), self.partial_channels)
        return shuffled.reshape(both.shape)


def edge(block: int, state: int) -> int:
    """Number the edge into `block` from `state`, counted by block, then by state."""
    return block * (block + 3) // 2 + state


def _chain(ops: tuple[Op, ...], channels: int) -> nn.Module:
    """Build operators one after the other."""
    return nn.Sequential(*(op.build([channels]) for op in ops))


def side_by_side(chain: nn.Module, copies: int) -> nn.Module:
    """Merge copies of a chain of layers on one input, each with its own weights, into one chain.

    (N, C, H, W) → (N, copies · C', H', W'), copy by copy. Without parameters all copies are equal, so one is enough.
    """
    layers = [leaf for leaf in chain.modules() if not list(leaf.children())]
    if not list(chain.parameters()):
        return chain
    weights: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers if isinstance(layer, nn.Conv2d)}
    for _ in range(copies):
        initialise(chain)
        for layer, drawn in weights.items():
            drawn.append(cast(Tensor, layer.weight).detach().clone())
    wide: list[nn.Module] = []
    repeated = False
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            # A dense convolution reads the shared input directly; any other needs one copy of it per chain.
            shared = not repeated and layer.groups == 1
            if not repeated and not shared:
                wide.append(_Repeat(copies))
            inputs = 1 if shared else copies
            conv = skip_init(  # type: ignore[no-untyped-call]
                type(layer),
                layer.in_channels * inputs,
                layer.out_channels * copies,
                layer.kernel_size,
                stride=layer.stride,
                padding=layer.padding,
                dilation=layer.dilation,
                groups=layer.groups * inputs,
                bias=False,
                device=layer.weight.device,
            )
            conv.weight.data.copy_(torch.cat(weights[layer]))
            wide.append(conv)
            repeated = True
        elif isinstance(layer, BatchNorm):
            wide.append(BatchNorm(layer.num_features * copies))
        else:
            wide.append(layer)
    return nn.Sequential(*wide)


class _Repeat(nn.Module):
    def __init__(self, copies: int) -> None:
        super().__init__()
        self.copies = copies

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(1, self.copies, 1, 1)
