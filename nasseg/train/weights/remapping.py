"""Weights of a published backbone for one that keeps a part of it, as FNA remaps them (arXiv 2001.02525).

A block of the re-shaped backbone has the name of the published block whose weights it takes, so a block is left out by
not being there. Of channels the most important are kept, the same in all layers that write, add or read them. Kernels
are padded with zeros, or cropped. So outputs stay equal where the shape does, where a kernel grows, and where all that
is left out was zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nasseg.graph import Architecture, Node
from nasseg.ops import Activation, BasicBlock, Bottleneck, Conv, InvertedResidual, MaxPool, Op


class OtherBackbone(ValueError):  # noqa: N818 - the weights are no error; they may fit another network
    """Weights that are not those of a network's backbone."""


NORM = ("weight", "bias", "running_mean", "running_var")


class Channels:
    """Channels that layers share, because they are written, added or read in the same place."""

    def __init__(self, kept: int) -> None:
        self.kept = kept


class Layer(NamedTuple):
    """A convolution and the norm after it, either of which may be missing, by the prefix of their tensors' names.

    A depthwise convolution reads the channels that it writes.
    """

    node: str
    conv: str | None
    norm: str | None
    reads: Channels
    writes: Channels
    kernel: int = 1

    @property
    def weight(self) -> str:
        """The name of the convolution's tensor, empty where there is none."""
        return "" if self.conv is None else f"{self.conv}.weight"

    @property
    def norms(self) -> list[str]:
        """The names of the norm's tensors."""
        return [] if self.norm is None else [f"{self.norm}.{name}" for name in NORM]


def remapped(weights: Mapping[str, Tensor], architecture: Architecture, stage: str = "backbone") -> dict[str, Tensor]:
    """The published `weights` in the shapes that the nodes of `stage` have; names are the architecture's.

    Tensors without a place in the architecture stay as they are. So does everything where the stage has a node whose
    operator is not in `LAYERS`. Raises `OtherBackbone` where the weights are of another backbone, or of one that is
    narrower.
    """
    nodes = [node for node in architecture.ordered if node.stage == stage]
    if not all(_can_be_reshaped(node.op) for node in nodes):
        return dict(weights)
    layers = _layers(nodes, architecture)
    _refuse_other_blocks(weights, nodes, layers)
    chosen = _Choice(weights, layers)
    result = dict(weights)
    for layer in layers:
        if layer.weight in weights:
            result[layer.weight] = chosen.convolution(layer)
        for name in layer.norms:
            if name in weights:
                result[name] = chosen.of(weights[name], layer.writes)
    return result


def _layers(nodes: Sequence[Node], architecture: Architecture) -> list[Layer]:
    layers: list[Layer] = []
    channels: dict[str, Channels] = {}
    for node in nodes:
        (source,) = node.inputs
        reads = channels.setdefault(source, Channels(architecture.channels(source)))
        same = isinstance(node.op, (Activation, MaxPool)) or (
            isinstance(node.op, (InvertedResidual, BasicBlock, Bottleneck)) and node.op.adds_input(reads.kept)
        )
        writes = channels[node.name] = reads if same else Channels(architecture.channels(node.name))
        layers += LAYERS[type(node.op)](node.name, node.op, reads, writes)
    return layers


def _conv(name: str, op: Conv, reads: Channels, writes: Channels) -> list[Layer]:
    alone = op.norm == "none" and op.activation == "none"
    norm = None if op.norm == "none" else f"{name}.1"
    return [Layer(name, name if alone else f"{name}.0", norm, reads, writes, op.kernel)]


def _activation(name: str, op: Activation, reads: Channels, writes: Channels) -> list[Layer]:
    if op.norm == "none":
        return []
    return [Layer(name, None, name if op.activation == "none" else f"{name}.0", reads, writes)]


def _max_pool(name: str, op: MaxPool, reads: Channels, writes: Channels) -> list[Layer]:
    return []


def _inverted_residual(name: str, op: InvertedResidual, reads: Channels, writes: Channels) -> list[Layer]:
    hidden, layers, place = reads, [], 0
    if op.expansion > 1:
        hidden, place = Channels(reads.kept * op.expansion), 1
        layers.append(Layer(name, f"{name}.conv.0.0", f"{name}.conv.0.1", reads, hidden))
    layers.append(Layer(name, f"{name}.conv.{place}.0", f"{name}.conv.{place}.1", hidden, hidden, op.kernel))
    layers.append(Layer(name, f"{name}.conv.{place + 1}", f"{name}.conv.{place + 2}", hidden, writes))
    return layers


def _basic_block(name: str, op: BasicBlock, reads: Channels, writes: Channels) -> list[Layer]:
    inside = Channels(op.out_channels)
    return [
        Layer(name, f"{name}.conv1", f"{name}.bn1", reads, inside, op.kernel),
        Layer(name, f"{name}.conv2", f"{name}.bn2", inside, writes, op.kernel),
        *_shortcut(name, op, reads, writes),
    ]


def _bottleneck(name: str, op: Bottleneck, reads: Channels, writes: Channels) -> list[Layer]:
    narrow, wide = Channels(op.out_channels // 4), Channels(op.out_channels // 4)
    return [
        Layer(name, f"{name}.conv1", f"{name}.bn1", reads, narrow),
        Layer(name, f"{name}.conv2", f"{name}.bn2", narrow, wide, op.kernel),
        Layer(name, f"{name}.conv3", f"{name}.bn3", wide, writes),
        *_shortcut(name, op, reads, writes),
    ]


def _shortcut(name: str, op: BasicBlock | Bottleneck, reads: Channels, writes: Channels) -> Iterator[Layer]:
    if not op.adds_input(reads.kept):
        yield Layer(name, f"{name}.downsample.0", f"{name}.downsample.1", reads, writes)


LAYERS: dict[type[Op], Callable[[str, Any, Channels, Channels], list[Layer]]] = {
    Conv: _conv,
    Activation: _activation,
    MaxPool: _max_pool,
    InvertedResidual: _inverted_residual,
    BasicBlock: _basic_block,
    Bottleneck: _bottleneck,
}
"""The layers of each operator that a backbone which can be re-shaped is made of."""


def _can_be_reshaped(op: Op) -> bool:
    plain = not isinstance(op, Conv) or (op.groups == 1 and not op.bias and op.pre_activation == "none")
    return type(op) in LAYERS and plain


def _refuse_other_blocks(weights: Mapping[str, Tensor], nodes: Sequence[Node], layers: Sequence[Layer]) -> None:
    own = {name for layer in layers for name in (layer.weight, *layer.norms)}
    if own.isdisjoint(weights):
        return  # other names altogether
    places = tuple(f"{node.name}." for node in nodes)
    for name in weights:
        if name.startswith(places) and name not in own and not name.endswith("num_batches_tracked"):
            raise OtherBackbone(
                f"{name} of the weights has no place in the network's block: use weights of its backbone"
            )


class _Choice:
    """Which of the published channels are kept, in rising order."""

    def __init__(self, weights: Mapping[str, Tensor], layers: Sequence[Layer]) -> None:
        self.weights = weights
        published = _published(weights, layers)
        self.kept = {
            channels: torch.arange(size) if size == channels.kept else _most_important(weights, layers, channels, size)
            for channels, size in published.items()
        }

    def of(self, tensor: Tensor, channels: Channels, axis: int = 0) -> Tensor:
        """The kept channels along an axis; the tensor itself where all are kept."""
        kept = self.kept[channels]
        return tensor if len(kept) == tensor.shape[axis] else tensor.index_select(axis, kept.to(tensor.device))

    def convolution(self, layer: Layer) -> Tensor:
        weight = self.of(self.weights[layer.weight], layer.writes)
        if layer.reads is not layer.writes:
            weight = self.of(weight, layer.reads, axis=1)
        margin = (layer.kernel - weight.shape[-1]) // 2
        return F.pad(weight, [margin] * 4) if margin else weight


def _published(weights: Mapping[str, Tensor], layers: Sequence[Layer]) -> dict[Channels, int]:
    """How many channels the published backbone has where the network has these."""
    sizes: dict[Channels, int] = {}

    def note(layer: Layer, channels: Channels, size: int) -> None:
        if sizes.setdefault(channels, size) != size or size < channels.kept:
            raise OtherBackbone(
                f"{layer.node} has {channels.kept} channels where the weights have {size}, but channels can only be "
                "left out, the same in all blocks that are added up: use weights of the network's backbone"
            )

    for layer in layers:
        if layer.weight in weights:
            written, read, *kernel = weights[layer.weight].shape
            if (layer.kernel == 1) != (kernel == [1, 1]):
                raise OtherBackbone(
                    f"{layer.weight} of the weights is {'×'.join(map(str, kernel))}, but the network's is "
                    f"{layer.kernel}×{layer.kernel}: use weights of its backbone"
                )
            note(layer, layer.writes, written)
            if layer.reads is not layer.writes:
                note(layer, layer.reads, read)
        for name in layer.norms:
            if name in weights:
                note(layer, layer.writes, len(weights[name]))
    return sizes


def _most_important(weights: Mapping[str, Tensor], layers: Sequence[Layer], channels: Channels, size: int) -> Tensor:
    """The channels to keep, by how large the values written there are times how much is made of them.

    Values are as large as the norm's scale and shift make them; weights that read a channel count by their sum of
    absolute values.
    """
    written, read = torch.zeros(size), torch.zeros(size)
    for layer in layers:
        scale, shift = (weights.get(f"{layer.norm}.{name}") for name in ("weight", "bias"))
        if layer.writes is channels and scale is not None and shift is not None:
            written += torch.hypot(scale.float(), shift.float()).cpu()
        weight = weights.get(layer.weight)
        if layer.reads is channels and weight is not None:
            depthwise = layer.reads is layer.writes
            read += weight.float().abs().sum((1, 2, 3) if depthwise else (0, 2, 3)).cpu()
    importance = written * read if read.any() else written  # only heads, which have no weights yet, read the output
    return importance.argsort(descending=True, stable=True)[: channels.kept].sort().values
