"""The part of a graph that is left where the outputs of another graph are known."""

from __future__ import annotations

from nasseg.graph.architecture import Architecture, ArchitectureError, Node
from nasseg.ops import Input, Resize


def following(architecture: Architecture, known: Architecture) -> Architecture:
    """Return what of `architecture` is left to compute from the outputs of `known`, its inputs under their names.

    An output stands for the node of its name if their hashes are equal and so are the graphs that lead to all that are
    used, which also tells one node used twice from two equal ones. As after `Architecture.cut`, the image may remain an
    input, for its size alone. Raises `ArchitectureError` if `architecture` needs anything else of what comes before.
    """
    there = {name for name in known.outputs if architecture.node_keys.get(name) == known.node_keys[name]}
    entries, after = _walk(architecture, there)
    for node in after:
        read = node.inputs[:1] if isinstance(node.op, Resize) else node.inputs
        if not there.issuperset(entries.intersection(read)):
            raise _misfit(architecture, known, f"node {node.name!r} needs more than is known")
    used = tuple(name for name in known.outputs if name in entries)
    if not used or _up_to(architecture, used).key != _up_to(known, used).key:
        raise _misfit(architecture, known, "what leads to its outputs is shared in another way there")
    inputs = [
        Node(name=node.name, op=Input(channels=architecture.channels(node.name)))
        for node in architecture.ordered
        if node.name in entries
    ]
    return Architecture(
        name=f"{architecture.name} after {known.name}",
        nodes=(*inputs, *after),
        outputs=architecture.outputs,
        training_outputs=architecture.training_outputs,
    )


def _walk(architecture: Architecture, there: set[str]) -> tuple[set[str], list[Node]]:
    """Walk back from the outputs to the nodes that are `there` and to inputs: the names of these, and those between."""
    entries, between = set[str](), set[str]()
    ahead = [*architecture.outputs, *architecture.training_outputs]
    while ahead:
        node = architecture[ahead.pop()]
        if node.name in there or isinstance(node.op, Input):
            entries.add(node.name)
        elif node.name not in between:
            between.add(node.name)
            ahead.extend(node.inputs)
    return entries, [node for node in architecture.nodes if node.name in between]


def _up_to(architecture: Architecture, outputs: tuple[str, ...]) -> Architecture:
    """Return the part that computes these outputs alone."""
    needed = architecture.ancestors(outputs)
    nodes = tuple(node for node in architecture.nodes if node.name in needed)
    return Architecture(name=architecture.name, nodes=nodes, outputs=outputs)


def _misfit(architecture: Architecture, known: Architecture, reason: str) -> ArchitectureError:
    """Name the first node that is another one; if there is none, give the reason."""
    other = (name for name, key in known.node_keys.items() if architecture.node_keys.get(name, key) != key)
    if (first := next(other, None)) is not None:
        reason = f"node {first!r} is another one there"
    return ArchitectureError(f"{architecture.name} cannot follow {known.name}: {reason}")
