"""Building an architecture line by line, as a paper's figure reads."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from nasseg.errors import one_line
from nasseg.graph.architecture import Architecture, ArchitectureError, Node, PublishedBackbone
from nasseg.ops import Input, Op


class Builder:
    """A collector of nodes; each call returns the new node's name, which later calls take as an input.

        g = Builder("tiny")
        image = g.input()
        x = g.add("backbone.stem", Conv(out_channels=16, stride=2), image)
        logits = g.add("head.logits", logits1x1(19), x)
        g.build(g.add("head.upsample", Resize(), logits, image))

    The first part of a dotted name is the node's stage. A function that adds a published backbone sets `backbone`, by
    which pretrained weights are recognised.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.backbone: PublishedBackbone | None = None
        self._scope: list[str] = []
        self._nodes: list[Node] = []
        self._channels: dict[str, int] = {}

    def input(self, channels: int = 3, name: str = "image") -> str:
        """Add an entry for a (N, channels, H, W) tensor."""
        return self.add(name, Input(channels=channels))

    def add(self, name: str, op: Op, *inputs: str) -> str:
        """Add the node `name` (within the current scope); raises `ArchitectureError` if its inputs do not fit."""
        full = ".".join([*self._scope, name])
        for source in inputs:
            if source not in self._channels:
                raise ArchitectureError(f"node {full!r} has the input {source!r}, but no node has that name yet")
        try:
            channels = op.check([self._channels[source] for source in inputs])
        except ValueError as error:
            raise ArchitectureError(f"node {full!r}: {error}") from None
        self._nodes.append(Node(name=full, op=op, inputs=inputs))
        self._channels[full] = channels
        return full

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put `name` and a dot before the names of the nodes added inside; the outermost scope is their stage."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    def channels(self, name: str) -> int:
        """Return the output channels of the node `name`."""
        return self._channels[name]

    def build(self, *outputs: str, training_outputs: tuple[str, ...] = ()) -> Architecture:
        """Return the finished architecture; the first output gives the logits. Raises `ArchitectureError`."""
        try:
            return Architecture(
                name=self.name,
                nodes=tuple(self._nodes),
                outputs=outputs,
                training_outputs=training_outputs,
                backbone=self.backbone,
            )
        except ValidationError as error:
            raise ArchitectureError(one_line(error, self.name)) from None
