"""The form a network is shipped in: batch norm folded into convolutions, channels last, one number format."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def inference_form(module: nn.Module, inputs: Sequence[Tensor]) -> nn.Module:
    """Copy `module` for inference, on the device and in the number format of `inputs`, (N, C, H, W) each.

    The copy is in evaluation mode and channels last. Batch norms are folded into the convolutions before them if
    nothing else reads the convolution's output. It computes the same function, up to rounding.
    """
    form = copy.deepcopy(module).eval().requires_grad_(False)
    for conv, norm in list(_foldable(form, inputs)):
        _fold(form, conv, norm)
    form.to(device=inputs[0].device, dtype=inputs[0].dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return form


def random_inputs(
    shapes: Sequence[tuple[int, int, int, int]], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Draw tensors of these shapes, (N, C, H, W) each, channels last, from the normal distribution."""
    return tuple(
        torch.randn(shape).to(device=device, dtype=dtype, memory_format=torch.channels_last) for shape in shapes
    )


class _Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A record of every operator call: the operator, its arguments and its result, all kept alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, list[Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, tree_leaves((args, kwargs)), result))
        return result


def _foldable(module: nn.Module, inputs: Sequence[Tensor]) -> Iterator[tuple[str, str]]:
    """Yield the names of each convolution and of the batch norm that alone reads its output.

    They are found by a run on the meta device, however the modules are written; no weights are copied.
    """
    state = {name: value.to("meta") for name, value in chain(module.named_parameters(), module.named_buffers())}
    owners = {id(value): name.rpartition(".")[0] for name, value in state.items()}
    meta = tuple(value.to("meta", torch.float32) for value in inputs)
    # In inference mode, calls arrive whole: conv2d and batch_norm, not what a version of PyTorch splits them into.
    with torch.inference_mode(), _Calls() as run:
        result = torch.func.functional_call(module, state, meta)
    uses = Counter(id(leaf) for leaf in chain(*(arguments for _, arguments, _ in run.calls), tree_leaves(result)))
    convolved = {
        id(result): arguments for func, arguments, result in run.calls if func == torch.ops.aten.conv2d.default
    }
    for func, arguments, _ in run.calls:
        if func == torch.ops.aten.batch_norm.default and id(arguments[0]) in convolved:
            weight, mean = convolved[id(arguments[0])][1], arguments[3]
            if uses[id(arguments[0])] == uses[id(weight)] == uses[id(mean)] == 1:
                yield owners[id(weight)], owners[id(mean)]


def _fold(module: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = module.get_submodule(conv_name), module.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    module.set_submodule(norm_name, nn.Identity())
