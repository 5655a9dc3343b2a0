import pickle
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nasseg.graph import Architecture, ArchitectureError, Builder, Node, following
from nasseg.network import Network
from nasseg.ops import Add, Concat, Conv, Identity, Input, Op, Resize, conv1x1, logits1x1

IMAGE = Node(name="image", op=Input())


def node(name: str, op: Op, *inputs: str) -> Node:
    return Node(name=name, op=op, inputs=inputs)


def make(*nodes: Node, outputs: tuple[str, ...] = ("out",), training: tuple[str, ...] = ()) -> Architecture:
    return Architecture(name="tiny", nodes=(IMAGE, *nodes), outputs=outputs, training_outputs=training)


def staged() -> Architecture:
    """Two features leave the backbone; the head has a train-only output of its own."""
    g = Builder("staged")
    image = g.input()
    low = g.add("backbone.low", Conv(out_channels=4, stride=2), image)
    high = g.add("backbone.high", Conv(out_channels=6, stride=2), low)
    cell = g.add("cell.conv", conv1x1(5), high)
    up = g.add("decoder.up", Resize(), cell, low)
    joined = g.add("decoder.concat", Concat(), up, low)
    aside = g.add("aside.logits", logits1x1(3), joined)
    logits = g.add("head.logits", logits1x1(3), joined)
    return g.build(g.add("head.up", Resize(), logits, image), training_outputs=(aside,))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: make(node("a", Identity(), "b"), node("b", Identity(), "a"), node("out", Add(), "a", "image")),
            r"nodes form a cycle: (a → b|b → a); remove one of its connections",
        ),
        (lambda: make(node("out", Identity(), "out")), "nodes form a cycle: out; remove"),
        (lambda: make(node("out", Add(), "image", "image", "x")), "node 'out' has the input 'x', but no node has that"),
        (lambda: make(node("out", conv1x1(4))), "node 'out': conv has 0 inputs, but must have 1"),
        (lambda: make(node("out", conv1x1(4), "image", "image")), "node 'out': conv has 2 inputs, but must have 1"),
        (lambda: make(node("out", Add(), "image")), "node 'out': add has 1 inputs, but must have at least 2"),
        (
            lambda: make(node("a", conv1x1(4), "image"), node("out", Add(), "a", "image")),
            "node 'out': inputs have 4, 3 channels, but must have equal numbers",
        ),
        (
            lambda: make(node("out", Conv(out_channels=4, groups=2), "image")),
            "node 'out': groups is 2, but must divide the input's 3 and the output's 4 channels",
        ),
        (
            lambda: make(node("out", Identity(), "image"), node("out", Identity(), "image")),
            "node 'out' is defined twice, but names must be unique",
        ),
        (
            lambda: make(node("a", Identity(), "image"), node("a.b.out", Identity(), "a"), outputs=("a.b.out",)),
            "node 'a.b.out' lies inside node 'a'; rename one",
        ),
        (
            lambda: make(node("dead", Identity(), "image"), node("out", Identity(), "image")),
            "node 'dead' leads to no output; connect or remove it",
        ),
        (lambda: make(), "the output 'out' is not a node's name"),
        (lambda: make(outputs=("image",), training=("aux",)), "the output 'aux' is not a node's name"),
        (lambda: make(outputs=()), "outputs"),
        (lambda: make(node("a b", Identity(), "image"), outputs=("a b",)), "node name 'a b' must be letters"),
        (lambda: make(node("a..b", Identity(), "image"), outputs=("a..b",)), "node name 'a..b' must be letters"),
    ],
)
def test_every_broken_rule_names_the_node(build: Callable[[], Architecture], message: str) -> None:
    with pytest.raises(ValueError, match=message if "form a cycle" in message else re.escape(message)):
        build()


def test_an_unused_input_is_no_mistake() -> None:
    other = node("other", Input(channels=1))
    assert make(other, node("out", Identity(), "image")).inputs == ("image", "other")


def test_nodes_may_come_in_any_order() -> None:
    architecture = make(node("out", Identity(), "a.b"), node("a.b", conv1x1(7), "image"))
    assert [n.name for n in architecture.ordered] == ["image", "a.b", "out"]
    assert architecture.channels("out") == architecture.classes == 7
    assert architecture.stages == ("a", "out")
    assert architecture["a.b"].stage == "a"
    assert architecture.ancestors(["a.b"]) == {"a.b", "image"}


def test_networkx_view() -> None:
    graph = staged().graph
    assert list(graph.predecessors("decoder.concat")) == ["decoder.up", "backbone.low"]
    assert graph.nodes["cell.conv"] == {"op": conv1x1(5), "stage": "cell"}


def test_it_never_changes_and_equals_its_copies() -> None:
    architecture = staged()
    assert architecture.key
    assert architecture == staged() == pickle.loads(pickle.dumps(architecture))
    with pytest.raises(ValueError, match="frozen"):
        architecture.name = "other"  # type: ignore[misc]


def test_replace_checks_anew_and_forgets_what_was_derived() -> None:
    architecture = staged()
    assert architecture.classes == 3
    other = architecture.replace(outputs=("decoder.up",), training_outputs=("head.up", "aside.logits"))
    assert other.classes == 5
    assert other.key != architecture.key
    with pytest.raises(ValueError, match=r"node 'aside\.logits' leads to no output"):
        architecture.replace(training_outputs=())


def test_inference_drops_what_only_training_needs() -> None:
    inference = staged().inference()
    assert {n.name for n in staged().nodes} - {n.name for n in inference.nodes} == {"aside.logits"}
    assert inference.training_outputs == ()
    assert inference.inference() == inference
    other = node("other", Input(channels=1))
    unused = make(other, node("out", Identity(), "image"), node("aux", Identity(), "other"), training=("aux",))
    assert unused.inference().inputs == ("image", "other")


@pytest.mark.parametrize(
    ("stage", "outputs", "inputs"),
    [
        ("backbone", ("backbone.low", "backbone.high"), ("image", "backbone.low", "backbone.high")),
        ("cell", ("backbone.low", "cell.conv"), ("image", "backbone.low", "cell.conv")),
        ("decoder", ("decoder.concat",), ("image", "decoder.concat")),
        ("backbone.low", ("backbone.low",), ("image", "backbone.low")),
        ("decoder.up", ("backbone.low", "decoder.up"), ("image", "backbone.low", "decoder.up")),
    ],
)
@torch.no_grad()
def test_parts_of_a_cut_together_are_the_whole(stage: str, outputs: tuple[str, ...], inputs: tuple[str, ...]) -> None:
    architecture = staged()
    prefix, suffix = architecture.cut(stage)
    assert prefix.outputs == outputs
    assert suffix.inputs == inputs
    assert (suffix.outputs, suffix.training_outputs) == (architecture.outputs, architecture.training_outputs)
    assert not {n.name for n in prefix.nodes} & {n.name for n in suffix.nodes if not isinstance(n.op, Input)}

    torch.manual_seed(0)
    whole, first, second = architecture.network(), prefix.network(), suffix.network()
    for part in (first, second):
        part.load_state_dict({key: whole.state_dict()[key] for key in part.state_dict()})
    assert set(first.state_dict()) | set(second.state_dict()) == set(whole.state_dict())

    image = torch.randn(2, 3, 9, 14)
    features = first.train().outputs({"image": image})
    together = second.train().outputs({"image": image, **features})
    expected = whole.train().outputs({"image": image})
    assert list(together) == list(expected)
    for name, value in expected.items():
        assert torch.equal(together[name], value)


def test_what_follows_a_known_part_is_what_its_cut_leaves() -> None:
    for stage in ("backbone", "cell", "decoder", "backbone.low", "decoder.up"):
        prefix, suffix = staged().cut(stage)
        left = following(staged(), prefix)
        assert (left.nodes, left.outputs) == (suffix.nodes, suffix.outputs)
        assert left.training_outputs == suffix.training_outputs


def two_stems(*inputs: str, rate: int = 1, reads: str = "b") -> Architecture:
    """Equal convolutions `a` and `b` of the stems that are named, and a head on what it reads, at the image's size."""
    g = Builder("two stems")
    image = g.input()
    for name in dict.fromkeys(inputs):
        g.add(name, conv1x1(4), image)
    for name, source in zip("ab", inputs, strict=True):
        g.add(name, Conv(out_channels=4, rate=(rate, rate)), source)
    ends = ["a", "b"] if reads == "b" else ["a", "b", reads]
    x = g.add("head.conv", conv1x1(2), g.add("head.concat", Concat(), *ends))
    return g.build(g.add("head.up", Resize(), x, image))


def test_a_part_is_known_by_its_graph_and_not_by_its_names_alone() -> None:
    whole = two_stems("stem1", "stem2")
    one = Architecture(name="one", nodes=whole.cut("a")[0].nodes, outputs=("a",))
    both = Architecture(name="both", nodes=whole.cut("head.concat")[0].nodes[:-1], outputs=("a", "b"))
    assert following(whole, both).inputs == ("image", "a", "b")
    with pytest.raises(ArchitectureError, match="two stems cannot follow both: node 'a' is another one there"):
        following(two_stems("stem1", "stem2", rate=2), both)
    with pytest.raises(ArchitectureError, match="cannot follow one: node 'stem2' needs more than is known"):
        following(whole, one)
    with pytest.raises(ArchitectureError, match=r"node 'head\.concat' needs more than is known"):
        following(two_stems("stem1", "stem2", reads="image"), both)
    # Each node computes what the known one does, but here one stem's weights serve both.
    with pytest.raises(ArchitectureError, match="what leads to its outputs is shared in another way there"):
        following(two_stems("stem1", "stem1"), both)


def test_prefixes_of_a_stage_have_one_key_whatever_follows() -> None:
    def with_head(classes: int) -> Architecture:
        g = Builder(f"{classes} classes")
        x = g.add("backbone.stem", conv1x1(4), g.input())
        return g.build(g.add("head", logits1x1(classes), x))

    assert with_head(2).cut("backbone")[0].key == with_head(3).cut("backbone")[0].key
    assert with_head(2).key != with_head(3).key


@pytest.mark.parametrize("stage", ["neck", "image", "back", "backbone.lo"])
def test_an_unknown_stage_names_the_known_ones(stage: str) -> None:
    with pytest.raises(
        ValueError, match=f"has nothing named '{stage}'; its stages: backbone, cell, decoder, aside, head"
    ):
        staged().cut(stage)


def test_network_and_description_are_at_hand() -> None:
    network = staged().network()
    assert isinstance(network, Network)
    output: Tensor = network.eval()(torch.zeros(1, 3, 8, 8))
    assert output.shape == (1, 3, 8, 8)
    assert staged().describe((8, 8)).size == (8, 8)
