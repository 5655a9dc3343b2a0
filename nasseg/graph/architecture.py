"""An architecture: a directed acyclic graph of named operators, as data."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property, lru_cache
from heapq import heappop, heappush
from reprlib import repr as short_repr
from typing import TYPE_CHECKING, Annotated, Final, Literal

import networkx as nx
from pydantic import BaseModel, ConfigDict, FailFast, Field, JsonValue, model_validator

from nasseg.foreign import MAX_INPUTS, MAX_NAME, MAX_NODES, Line
from nasseg.graph.identity import digest, graph_key
from nasseg.ops import AnyOp, Input, Op

if TYPE_CHECKING:
    from nasseg.cost import Description
    from nasseg.network import Network

FORMAT: Final = "nasseg.architecture/1"
NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


class ArchitectureError(ValueError):
    """A graph that breaks a rule; the message names the node."""


class Node(BaseModel):
    """One named operator and the names of the nodes that feed it, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    op: AnyOp
    inputs: tuple[str, ...] = ()

    @property
    def stage(self) -> str:
        """The first part of the dotted name: `backbone`, `cell`, `decoder`, …"""
        return self.name.split(".", 1)[0]


class PublishedBackbone(BaseModel):
    """The published backbone of which a network's stage `backbone` keeps all or a part.

    `channels` tells its weights from those of its relatives: the output channels of a few of their tensors, by the name
    that each has in the whole backbone, 0 for one that they do not have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    channels: dict[str, int]


@lru_cache(maxsize=MAX_NODES)
def _identity(op: Op) -> dict[str, JsonValue]:
    return op.identity()


class Architecture(BaseModel):
    """A network as data: what a baseline, a point of a search space and `best.json` all are.

    `outputs[0]` gives the logits, at the image's size; `training_outputs` are computed in training only. `backbone`
    says which pretrained weights are its own, `space` and `choice` which point of which search space this is,
    `provenance` how it was found. Neither they nor any name is part of the identity (`key`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["nasseg.architecture/1"] = FORMAT
    name: Annotated[Line, Field(min_length=1)]
    nodes: Annotated[tuple[Node, ...], Field(max_length=MAX_NODES), FailFast()]
    outputs: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_NODES)]
    training_outputs: Annotated[tuple[str, ...], Field(max_length=MAX_NODES)] = ()
    backbone: PublishedBackbone | None = None
    space: str | None = None
    choice: dict[str, JsonValue] | None = None
    provenance: dict[str, JsonValue] | None = None

    @model_validator(mode="after")
    def _check(self) -> Architecture:
        self._check_names()
        self._check_edges()
        for name in self._order:
            self._channels_of(name)
        return self

    def _check_names(self) -> None:
        seen: set[str] = set()
        for node in self.nodes:
            if len(node.name) > MAX_NAME or not NAME.fullmatch(node.name):
                raise ArchitectureError(
                    f"node name {short_repr(node.name)} must be letters, digits and _, in parts joined by single dots, "
                    f"at most {MAX_NAME} characters"
                )
            if node.name in seen:
                raise ArchitectureError(f"node {node.name!r} is defined twice, but names must be unique")
            seen.add(node.name)
        for name in seen:
            parts = name.split(".")
            for end in range(1, len(parts)):
                if ".".join(parts[:end]) in seen:
                    raise ArchitectureError(f"node {name!r} lies inside node {'.'.join(parts[:end])!r}; rename one")

    def _check_edges(self) -> None:
        names = {node.name for node in self.nodes}
        for node in self.nodes:
            for source in node.inputs:
                if source not in names:
                    raise ArchitectureError(
                        f"node {node.name!r} has the input {short_repr(source)}, but no node has that name"
                    )
        for output in (*self.outputs, *self.training_outputs):
            if output not in names:
                raise ArchitectureError(f"the output {short_repr(output)} is not a node's name")
        if (edges := sum(len(node.inputs) for node in self.nodes)) > MAX_INPUTS:
            raise ArchitectureError(f"nodes have {edges:,} inputs together, but must have at most {MAX_INPUTS:,}")
        if len(self._order) < len(self.nodes):
            cycle = " → ".join(edge[0] for edge in nx.find_cycle(self.graph))
            raise ArchitectureError(f"nodes form a cycle: {cycle}; remove one of its connections")
        needed = self.ancestors((*self.outputs, *self.training_outputs))
        for node in self.nodes:
            if node.name not in needed and not isinstance(node.op, Input):
                raise ArchitectureError(f"node {node.name!r} leads to no output; connect or remove it")

    def _channels_of(self, name: str) -> int:
        if name not in self._channels:
            node = self[name]
            try:
                self._channels[name] = node.op.check([self._channels[source] for source in node.inputs])
            except ValueError as error:
                raise ArchitectureError(f"node {name!r}: {error}") from None
        return self._channels[name]

    @cached_property
    def _channels(self) -> dict[str, int]:
        return {}

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def _order(self) -> tuple[str, ...]:
        """The names of the nodes, each after its inputs, else as they are listed; those of a cycle are left out."""
        users: dict[str, list[int]] = {node.name: [] for node in self.nodes}
        missing = []
        for place, node in enumerate(self.nodes):
            sources = set(node.inputs)
            missing.append(len(sources))
            for source in sources:
                users[source].append(place)
        ready = [place for place, count in enumerate(missing) if count == 0]
        order = []
        while ready:
            node = self.nodes[heappop(ready)]
            order.append(node.name)
            for place in users[node.name]:
                missing[place] -= 1
                if missing[place] == 0:
                    heappush(ready, place)
        return tuple(order)

    def ancestors(self, outputs: Iterable[str]) -> set[str]:
        """Return the names of `outputs` and of every node that they are computed from."""
        found = set(outputs)
        waiting = list(found)
        while waiting:
            new = set(self[waiting.pop()].inputs) - found
            found |= new
            waiting += new
        return found

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    @cached_property
    def graph(self) -> nx.DiGraph:
        """The networkx view: nodes by name with their `op`, edges from source to target."""
        graph = nx.DiGraph()
        for node in self.nodes:
            graph.add_node(node.name, op=node.op, stage=node.stage)
        graph.add_edges_from((source, node.name) for node in self.nodes for source in node.inputs)
        return graph

    @property
    def ordered(self) -> tuple[Node, ...]:
        """The nodes, each after its inputs."""
        return tuple(self[name] for name in self._order)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the `Input` nodes, in the order in which the network takes them."""
        return tuple(node.name for node in self.nodes if isinstance(node.op, Input))

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages in the order in which they are computed, inputs left out."""
        return tuple(dict.fromkeys(node.stage for node in self.ordered if not isinstance(node.op, Input)))

    @property
    def classes(self) -> int:
        """Channels of the first output."""
        return self.channels(self.outputs[0])

    def channels(self, name: str) -> int:
        """Return the output channels of the node `name`."""
        return self._channels[name]

    @cached_property
    def node_keys(self) -> dict[str, str]:
        """Each node's hash: its operator and its inputs' hashes, so equal hashes mean the same function of the inputs.

        The order of inputs counts only if it matters to the operator; names never count. The network's own inputs are
        distinguished by position.
        """
        place = {name: index for index, name in enumerate(self.inputs)}
        keys: dict[str, str] = {}
        for node in self.ordered:
            inputs = [keys[source] for source in node.inputs]
            ordered = sorted(inputs) if node.op.order_free else inputs
            keys[node.name] = digest([_identity(node.op), place.get(node.name), ordered])
        return keys

    @cached_property
    def key(self) -> str:
        """The hash of the whole graph: equal exactly for graphs that differ only in names and order-free order.

        One node used twice differs from two equal nodes, as each of these has its own weights.
        """
        roles = self.outputs, self.training_outputs
        colours = {
            name: digest([key, *([place for place, output in enumerate(names) if output == name] for names in roles)])
            for name, key in self.node_keys.items()
        }
        edges = [
            (source, "" if node.op.order_free else str(place), node.name)
            for node in self.nodes
            for place, source in enumerate(node.inputs)
        ]
        return graph_key(colours, edges)

    def cut(self, place: str) -> tuple[Architecture, Architecture]:
        """Split after `place`: (prefix, suffix), the suffix's inputs named as the prefix's outputs they stand for.

        `place` is a stage, or any prefix of dotted names, down to one node (`backbone.features.13`). The prefix
        holds the nodes there and all before them. An input of the whole graph that the suffix uses too (the image,
        whose size the logits take) is an input of both.
        """
        inside = [node for node in self.nodes if f"{node.name}.".startswith(f"{place}.")]
        own = [node.name for node in inside if not isinstance(node.op, Input)]
        if not own:
            raise ValueError(f"{self.name} has nothing named {place!r}; its stages: {', '.join(self.stages)}")
        before = self.ancestors(own)
        after = [node for node in self.nodes if node.name not in before]
        used = {source for node in after for source in node.inputs} | set(self.outputs) | set(self.training_outputs)
        border = [node for node in self.ordered if node.name in before and node.name in used]
        tensors = tuple(node.name for node in border if not isinstance(node.op, Input))
        prefix = Architecture(
            name=f"{self.name} up to {place}",
            nodes=tuple(node for node in self.nodes if node.name in before),
            outputs=tensors,
            backbone=self.backbone,
        )
        entries = [Node(name=node.name, op=Input(channels=self.channels(node.name))) for node in border]
        suffix = Architecture(
            name=f"{self.name} after {place}",
            nodes=(*entries, *after),
            outputs=self.outputs,
            training_outputs=self.training_outputs,
        )
        return prefix, suffix

    def inference(self) -> Architecture:
        """Return the same network without what only training needs."""
        needed = self.ancestors(self.outputs)
        nodes = tuple(node for node in self.nodes if node.name in needed or isinstance(node.op, Input))
        return self.replace(nodes=nodes, training_outputs=())

    def replace(self, **fields: object) -> Architecture:
        """Return a copy with some fields changed, validated again."""
        return Architecture(**{**{name: getattr(self, name) for name in type(self).model_fields}, **fields})

    def network(self) -> Network:
        """Build a fresh `torch.nn.Module`, with weights drawn from PyTorch's global generator."""
        from nasseg.network import Network

        return Network(self)

    def describe(self, size: tuple[int, int] = (512, 1024)) -> Description:
        """Describe parameters, MAdds and shapes per node and stage, for images of `size` (height, width) in pixels."""
        from nasseg.cost import describe

        return describe(self, size)
