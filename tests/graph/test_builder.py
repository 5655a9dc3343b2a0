import pytest

from nasseg.graph import Architecture, ArchitectureError, Builder, Node
from nasseg.ops import Add, Conv, Input, Resize, conv1x1, logits1x1


def test_it_reads_as_a_figure() -> None:
    g = Builder("tiny")
    image = g.input()
    with g.scope("backbone"):
        x = g.add("stem", Conv(out_channels=16, stride=2), image)
        with g.scope("block"):
            x = g.add("1", conv1x1(8), x)
    assert (x, g.channels(x)) == ("backbone.block.1", 8)
    logits = g.add("head.logits", logits1x1(19), x)
    built = g.build(g.add("head.upsample", Resize(), logits, image), training_outputs=(logits,))
    assert built == Architecture(
        name="tiny",
        nodes=(
            Node(name="image", op=Input(channels=3)),
            Node(name="backbone.stem", op=Conv(out_channels=16, stride=2), inputs=("image",)),
            Node(name="backbone.block.1", op=conv1x1(8), inputs=("backbone.stem",)),
            Node(name="head.logits", op=logits1x1(19), inputs=("backbone.block.1",)),
            Node(name="head.upsample", op=Resize(), inputs=("head.logits", "image")),
        ),
        outputs=("head.upsample",),
        training_outputs=("head.logits",),
    )


def test_a_scope_ends_with_an_error_too() -> None:
    g = Builder("tiny")
    with pytest.raises(KeyError), g.scope("backbone"):
        raise KeyError
    assert g.input() == "image"


def test_unknown_inputs_and_misfits_are_refused_where_they_are_added() -> None:
    g = Builder("tiny")
    image = g.input()
    with pytest.raises(ArchitectureError, match=r"^node 'a\.b' has the input 'c', but no node has that name yet$"):
        g.add("a.b", conv1x1(8), "c")
    a = g.add("a", conv1x1(8), image)
    with pytest.raises(
        ArchitectureError, match=r"^node 'sum': inputs have 3, 8 channels, but must have equal numbers$"
    ):
        g.add("sum", Add(), image, a)
    with pytest.raises(ArchitectureError, match=r"^node 'sum': add has 1 inputs, but must have at least 2$"):
        g.add("sum", Add(), a)


def test_an_invalid_whole_is_refused_in_one_line() -> None:
    g = Builder("tiny")
    g.add("a", conv1x1(8), g.input())
    with pytest.raises(ArchitectureError, match=r"^tiny: node 'a' leads to no output; connect or remove it$"):
        g.build("image")
