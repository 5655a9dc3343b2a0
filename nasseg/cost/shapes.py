"""The shapes that every node of an architecture takes and gives, found once per operator on PyTorch's meta device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch

from nasseg.graph import Architecture, Node
from nasseg.ops import Input, Op

Shape = tuple[int, int, int]
"""(C, H, W)."""


def node_shapes(architecture: Architecture, size: tuple[int, int]) -> Iterator[tuple[Node, tuple[Shape, ...], Shape]]:
    """Every node that computes something, in order, with its inputs' shapes and its output's.

    `size` is the images' (height, width) in pixels. Raises `ValueError` where maps do not fit.
    """
    shapes: dict[str, Shape] = {}
    for node in architecture.ordered:
        if isinstance(node.op, Input):
            shapes[node.name] = (node.op.channels, *size)
            continue
        inputs = tuple(shapes[source] for source in node.inputs)
        try:
            shapes[node.name] = output_shape(node.op, inputs)
        except (RuntimeError, ValueError) as error:
            given = ", ".join("×".join(map(str, shape)) for shape in inputs)
            reason = str(error).splitlines()[0]
            raise ValueError(f"node {node.name!r} cannot take inputs of {given}: {reason}") from None
        yield node, inputs, shapes[node.name]


def output_shape(op: Op, inputs: Sequence[Shape]) -> Shape:
    """The shape that `op` makes of inputs of these shapes."""
    return _output_shape(op, tuple(inputs))


@lru_cache(maxsize=65536)
def _output_shape(op: Op, inputs: tuple[Shape, ...]) -> Shape:
    with torch.device("meta"), torch.no_grad():
        module = op.build([channels for channels, _, _ in inputs]).eval()
        channels, height, width = module(*(torch.empty(1, *shape) for shape in inputs)).shape[1:]
    return channels, height, width
