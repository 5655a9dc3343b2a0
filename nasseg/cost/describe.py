"""Parameters, MAdds and shapes of every node, from a run on PyTorch's meta device: no formula written by hand."""

import math
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from nasseg.cost.counting import CountingMode
from nasseg.graph import Architecture
from nasseg.graph.architecture import Node
from nasseg.ops import Input, Op

Shape = tuple[int, int, int]
"""(C, H, W)."""


class OperatorCost(BaseModel):
    """The cost of an operator at batch 1: `weights` are convolution and linear weights only, `shape` is (C, H, W)."""

    model_config = ConfigDict(frozen=True)

    params: int
    weights: int
    madds: int
    shape: Shape


class NodeCost(OperatorCost):
    """The cost of one node of a network."""

    name: str
    op: str
    inputs: tuple[str, ...]


class StageCost(BaseModel):
    """The cost of one stage: the sum over its nodes."""

    model_config = ConfigDict(frozen=True)

    params: int
    weights: int
    madds: int


class Description(BaseModel):
    """The costs of a network in inference, and `params_training` with the train-only outputs."""

    model_config = ConfigDict(frozen=True)

    name: str
    key: str
    params: int
    params_training: int
    madds: int
    size: tuple[int, int]
    classes: int
    stages: dict[str, StageCost]
    nodes: tuple[NodeCost, ...]


def describe(architecture: Architecture, size: tuple[int, int]) -> Description:
    """Count the costs of `architecture` on images of `size` (height, width) in pixels.

    MAdds count convolutions, transposed convolutions and matrix products, at batch 1. Nothing is allocated or computed.
    """
    costs = {node.name: cost for node, _, cost in walk(architecture, size)}
    needed = architecture.ancestors(architecture.outputs)
    nodes = tuple(
        NodeCost(name=node.name, op=str(node.op), inputs=node.inputs, **costs[node.name].model_dump())
        for node in architecture.ordered
        if node.name in needed or isinstance(node.op, Input)
    )
    by_stage: dict[str, list[NodeCost]] = {}
    for node in nodes:
        if node.inputs:  # inputs cost nothing
            by_stage.setdefault(_stage(node), []).append(node)
    stages = {
        stage: StageCost(
            params=sum(node.params for node in own),
            weights=sum(node.weights for node in own),
            madds=sum(node.madds for node in own),
        )
        for stage, own in by_stage.items()
    }
    return Description(
        name=architecture.name,
        key=architecture.key,
        params=sum(node.params for node in nodes),
        params_training=sum(cost.params for cost in costs.values()),
        madds=sum(node.madds for node in nodes),
        size=size,
        classes=architecture.classes,
        stages=stages,
        nodes=nodes,
    )


def walk(architecture: Architecture, size: tuple[int, int]) -> Iterator[tuple[Node, tuple[Shape, ...], OperatorCost]]:
    """Yield each node in the order of computation, with its inputs' shapes and its cost, for images of `size`."""
    shapes: dict[str, Shape] = {}
    for node in architecture.ordered:
        inputs = tuple(shapes[source] for source in node.inputs)
        if isinstance(node.op, Input):
            cost = OperatorCost(params=0, weights=0, madds=0, shape=(node.op.channels, *size))
        else:
            try:
                cost = operator_cost(node.op, inputs)
            except ValueError as error:
                sizes = ", ".join("×".join(map(str, shape)) for shape in inputs)
                raise ValueError(f"node {node.name!r} cannot take inputs of {sizes}: {error}") from None
        shapes[node.name] = cost.shape
        yield node, inputs, cost


@cache
def operator_cost(op: Op, input_shapes: tuple[Shape, ...]) -> OperatorCost:
    """Count the cost of one operator on inputs of these shapes, on PyTorch's meta device; the result is cached.

    Raises `ValueError` if it cannot take them.
    """
    try:
        with torch.device("meta"), torch.inference_mode(), CountingMode() as counter:
            module = op.build([channels for channels, _, _ in input_shapes]).eval()
            output = module(*(torch.empty(1, *shape) for shape in input_shapes))
    except (RuntimeError, OverflowError) as error:
        raise ValueError(str(error).splitlines()[0]) from None
    channels, height, width = output.shape[1:]
    return OperatorCost(
        params=sum(parameter.numel() for parameter in module.parameters()),
        weights=sum(
            layer.weight.numel()
            for layer in module.modules()
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
        ),
        madds=counter.madds,
        shape=(channels, height, width),
    )


def op_madds(op: Op, input_shapes: Sequence[Shape]) -> int:
    """Count the multiply–adds of one operator on inputs of these shapes (C, H, W), as `describe` does."""
    return operator_cost(op, tuple(input_shapes)).madds


def values_moved(op: Op, input_shapes: Sequence[Shape]) -> int:
    """Count the values that one operator reads and writes on inputs of these shapes: weights, inputs and output."""
    cost = operator_cost(op, tuple(input_shapes))
    return cost.weights + sum(map(math.prod, (*input_shapes, cost.shape)))


def _stage(node: NodeCost) -> str:
    return node.name.split(".", 1)[0]
