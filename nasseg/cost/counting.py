"""Counting multiply–adds in a run that computes shapes alone, in a tenth of the time of PyTorch's meta device.

On that device, PyTorch takes a normalisation, an activation or a resizing apart into dozens of primitives, each of them
in Python. Only the shapes of their results count here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten
_KEEP_THE_SHAPE = frozenset(
    {
        *(_aten.batch_norm.default, _aten.relu.default, _aten.relu_.default, _aten.relu6.default, _aten.relu6_.default),
        *(_aten.hardtanh.default, _aten.hardtanh_.default, _aten.sigmoid.default),
        *(_aten.uniform_.default, _aten.normal_.default, _aten.fill_.Scalar, _aten.zero_.default),
    }
)
_RESIZE = frozenset({_aten.upsample_bilinear2d.vec, _aten.upsample_nearest2d.vec})


class CountingMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that counts the `madds` of what runs under it: convolutions, transposed ones, and matrix products.

    It is for inference mode, in which calls arrive whole, and tensors on the meta device, which have no values: what
    keeps the shape may return its input.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.madds = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one call, or make an empty tensor of its result's shape."""
        kwargs = kwargs or {}
        if func in _KEEP_THE_SHAPE:
            return args[0]
        if func in _RESIZE and args[1] is not None:
            return args[0].new_empty((*args[0].shape[:2], *args[1]))
        if func == _aten.conv2d.default and not kwargs:
            output = _convolved(*args)
            self.madds += output.numel() // output.shape[1] * args[1].numel()
            return output
        with self:
            parts = func.decompose(*args, **kwargs)  # a call that is made of others
        if parts is not NotImplemented:
            return parts
        output = func(*args, **kwargs)
        if func.overloadpacket in flop_registry:
            self.madds += flop_registry[func.overloadpacket](*args, **kwargs, out_val=output) // 2
        return output


def _convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    rate: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Make an empty tensor of the shape of `torch.conv2d`'s result, from its arguments."""
    sides = zip(x.shape[2:], weight.shape[2:], stride, padding, rate, strict=True)
    size = ((length + 2 * pad - gap * (kernel - 1) - 1) // step + 1 for length, kernel, step, pad, gap in sides)
    return x.new_empty((x.shape[0], weight.shape[0], *size))
