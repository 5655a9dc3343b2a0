"""Parameters, MAdds and shapes of every node, from a run on PyTorch's meta device: no formula written by hand."""

from collections.abc import Iterable, Sequence
from functools import cache

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nasseg.graph import Architecture
from nasseg.network import Network
from nasseg.ops import Op


class NodeCost(BaseModel):
    """One node: `weights` counts convolution and linear weights only, `shape` is (C, H, W), MAdds are at batch 1."""

    model_config = ConfigDict(frozen=True)

    name: str
    op: str
    inputs: tuple[str, ...]
    params: int
    weights: int
    madds: int
    shape: tuple[int, int, int]


class StageCost(BaseModel):
    """The sum over the nodes of one stage."""

    model_config = ConfigDict(frozen=True)

    params: int
    weights: int
    madds: int


class Description(BaseModel):
    """What `nasseg describe` prints: costs in inference, and `params_training` with the train-only outputs."""

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
    """Costs of `architecture` for images of `size` (height, width) in pixels; nothing is allocated or computed.

    MAdds count convolutions, transposed convolutions and matrix products, at batch 1.
    """
    inference = architecture.inference()
    with torch.device("meta"):
        network = Network(inference).eval()
        params_training = _params(Network(architecture)) if architecture.training_outputs else _params(network)
        shapes = {name: (architecture.channels(name), *size) for name in inference.inputs}
    nodes = tuple(node_costs(network, shapes))
    stages = {
        stage: StageCost(
            params=sum(node.params for node in nodes if _stage(node) == stage),
            weights=sum(node.weights for node in nodes if _stage(node) == stage),
            madds=sum(node.madds for node in nodes if _stage(node) == stage),
        )
        for stage in inference.stages
    }
    return Description(
        name=architecture.name,
        key=architecture.key,
        params=sum(node.params for node in nodes),
        params_training=params_training,
        madds=sum(node.madds for node in nodes),
        size=size,
        classes=architecture.classes,
        stages=stages,
        nodes=nodes,
    )


def node_costs(network: Network, input_shapes: dict[str, tuple[int, int, int]]) -> Iterable[NodeCost]:
    """The cost of every node of a network on the meta device, in the order of computation."""
    architecture = network.architecture
    values = {name: torch.empty(1, *shape, device="meta") for name, shape in input_shapes.items()}
    for node in architecture.ordered:
        madds = 0
        module = network.get_submodule(node.name)
        if node.name not in values:
            try:
                with torch.no_grad(), FlopCounterMode(display=False) as counter:
                    values[node.name] = module(*(values[source] for source in node.inputs))
            except (RuntimeError, ValueError) as error:
                sizes = ", ".join("×".join(map(str, values[source].shape[1:])) for source in node.inputs)
                reason = str(error).splitlines()[0]
                raise ValueError(f"node {node.name!r} cannot take inputs of {sizes}: {reason}") from None
            madds = counter.get_total_flops() // 2
        channels, height, width = values[node.name].shape[1:]
        yield NodeCost(
            name=node.name,
            op=str(node.op),
            inputs=node.inputs,
            params=_params(module),
            weights=sum(
                layer.weight.numel()
                for layer in module.modules()
                if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
            ),
            madds=madds,
            shape=(channels, height, width),
        )


def op_madds(op: Op, input_shapes: Sequence[tuple[int, int, int]]) -> int:
    """Multiply–adds of one operator on inputs of these shapes (C, H, W), counted as by `describe`."""
    return _op_madds(op, tuple(input_shapes))


@cache
def _op_madds(op: Op, input_shapes: tuple[tuple[int, int, int], ...]) -> int:
    with torch.device("meta"):
        module = op.build([channels for channels, _, _ in input_shapes]).eval()
        inputs = [torch.empty(1, *shape) for shape in input_shapes]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    madds: int = counter.get_total_flops() // 2
    return madds


def _stage(node: NodeCost) -> str:
    return node.name.split(".", 1)[0]


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
