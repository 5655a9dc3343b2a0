"""Peak memory of inference, from the graph: the memory alive at each node and inside each operator."""

from __future__ import annotations

import weakref
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nasseg.cost.backends import DTYPES
from nasseg.cost.describe import Shape, walk
from nasseg.cost.inference import inference_form
from nasseg.graph import Architecture
from nasseg.ops import Input, Op


class OpMemory(NamedTuple):
    """Bytes of an operator in inference form: its weights, the peak above its inputs while it runs, its output.

    `alias` is the position of the input whose memory the output shares (an identity), if any.
    """

    weights: int
    peak: int
    output: int
    alias: int | None


def peak_memory_bytes(
    architecture: Architecture, size: tuple[int, int], *, batch: int = 1, dtype: str = "float32"
) -> int:
    """Compute the peak memory of a network's weights and maps together in inference, in bytes.

    Images have `size` (height, width). Maps are freed after their last use, as in `Network`. Buffers inside kernels are
    not counted (on a CPU, a copy of a dense convolution's weights while it runs), nor is the memory that the process
    takes without any network.
    """
    network = architecture.inference()
    nodes = [(node, inputs) for node, inputs, _ in walk(network, size) if not isinstance(node.op, Input)]
    last_use = {source: node.name for node, _ in nodes for source in node.inputs}
    owner = {name: name for name in network.inputs}
    held = {name: batch * network.channels(name) * prod(size) * DTYPES[dtype].itemsize for name in network.inputs}
    users = {name: {name, "the caller"} for name in network.inputs}
    weights = peak = 0
    for node, inputs in nodes:
        memory = op_memory(node.op, inputs, batch=batch, dtype=dtype)
        weights += memory.weights
        peak = max(peak, sum(held.values()) + memory.peak)
        if memory.alias is None:
            owner[node.name], held[node.name], users[node.name] = node.name, memory.output, {node.name}
        else:
            owner[node.name] = owner[node.inputs[memory.alias]]
            users[owner[node.name]].add(node.name)
        for source in set(node.inputs):
            if last_use[source] == node.name and source not in network.outputs:
                users[owner[source]].discard(source)
                if not users[owner[source]]:
                    del held[owner[source]]
    return weights + peak


def op_memory(op: Op, inputs: tuple[Shape, ...], *, batch: int = 1, dtype: str = "float32") -> OpMemory:
    """Compute the memory of one operator on inputs of these shapes (C, H, W), by a run on PyTorch's meta device."""
    return _op_memory(op, inputs, batch, dtype)


@lru_cache(maxsize=65536)
def _op_memory(op: Op, inputs: tuple[Shape, ...], batch: int, dtype: str) -> OpMemory:
    with torch.device("meta"), torch.inference_mode():
        module = op.build([channels for channels, _, _ in inputs])
        maps = tuple(
            torch.empty(batch, *shape, dtype=DTYPES[dtype]).contiguous(memory_format=torch.channels_last)
            for shape in inputs
        )
        form = inference_form(module, maps)
        with Allocated() as memory:
            output = form(*maps)
    storage = _address(output)
    places = [place for place, value in enumerate(maps) if _address(value) == storage]
    weights = {_address(t): t.untyped_storage().nbytes() for t in (*form.parameters(), *form.buffers())}
    return OpMemory(
        weights=sum(weights.values()),
        peak=memory.peak,
        output=output.untyped_storage().nbytes(),
        alias=places[0] if places else None,
    )


class Allocated(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes in storages made since it began: alive now, and at the peak; on any device, the meta device included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _address(leaf) not in given and _address(leaf) not in self._known:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        self._known[address] = size
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._remove, address)

    def _remove(self, address: int) -> None:
        self.alive -= self._known.pop(address)


def _address(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address
