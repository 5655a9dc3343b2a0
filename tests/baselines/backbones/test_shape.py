"""Backbones in other shapes than the published one: what is built, under which names, and what is refused."""

import pytest
from pydantic import ValidationError

from baselines.backbones import BACKBONES, Shape, Stage
from nasseg import plugins
from nasseg.graph import Architecture, Builder
from nasseg.ops import BasicBlock, Bottleneck, InvertedResidual

STAGES = {"mobilenetv2": 7, "efficientnet_lite0": 7, "efficientnet_lite1": 7, "efficientnet_lite2": 7} | {
    f"resnet{depth}": 4 for depth in (18, 50, 101)
}
every_backbone = pytest.mark.parametrize("name", STAGES)

# Hashes from before operators had the fields that shapes set. They name features, studies and weights in run folders.
KEYS = {
    "deeplabv3-mobilenetv2": "a68ef154e5903794a313",
    "deeplabv3-resnet101": "9b09bb7d6ea3d0d766dc",
    "deeplabv3-resnet50": "9bf5a9715b4a4bdb6d70",
    "deeplabv3-resnet50:output_stride=8": "879878020045ed96faec",
    "deeplabv3-xception65": "976707e739b2b8fd1236",
    "deeplabv3plus-mobilenetv2": "19d5d21c0f7e1f6c8482",
    "deeplabv3plus-mobilenetv2:output_stride=8": "3577e4d31ce541105139",
    "deeplabv3plus-mobilenetv2:output_stride=32": "3ff69f1723fbfde02040",
    "deeplabv3plus-xception71": "2a5e104b4250ef3d5762",
    "fcn-resnet50": "5fa388b994932759596e",
    "pspnet-resnet50": "88b6686e23c774df69a7",
    "dpc:backbone=resnet18": "47f63b8d2e49289639bf",
    "unet": "449b9f1a50c6f22f24e6",
    "stdc1": "b384b99cfe8ea325595f",
    "auto_deeplab-s": "08c8fecc55633e3478f1",
}


def build(name: str, shape: Shape | None, output_stride: int = 16) -> tuple[Architecture, dict[int, str]]:
    """A backbone by itself with all its taps as outputs, and the taps."""
    g = Builder(name)
    features = BACKBONES[name](g, g.input(), output_stride, shape=shape)
    assert features.taps[4] == features.low_level
    others = [tap for tap in features.taps.values() if tap != features.output]
    return g.build(features.output, *others), dict(features.taps)


def stages(name: str, **changed: object) -> Shape:
    return Shape(stages=(Stage.model_validate(changed),) * STAGES[name])


def blocks(architecture: Architecture) -> list[str]:
    return [n.name for n in architecture.nodes if isinstance(n.op, (InvertedResidual, BasicBlock, Bottleneck))]


@pytest.mark.parametrize("text", KEYS)
def test_published_networks_keep_their_hashes(text: str) -> None:
    assert plugins.architecture(text).key == KEYS[text]


@every_backbone
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_by_default_a_shape_is_the_published_one(name: str, output_stride: int) -> None:
    assert build(name, stages(name), output_stride) == build(name, None, output_stride)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_taps_are_the_last_maps_at_their_strides(name: str, output_stride: int) -> None:
    architecture, taps = build(name, None, output_stride)
    assert list(taps) == [stride for stride in (4, 8, 16, 32) if stride <= output_stride]
    shapes = {node.name: node.shape for node in architecture.describe((64, 96)).nodes}
    assert {stride: shapes[tap][1:] for stride, tap in taps.items()} == {s: (64 // s, 96 // s) for s in taps}
    last = {shape[1:]: node for node, shape in shapes.items()}
    assert set(taps.values()) <= set(last.values())


def test_taps_of_mobilenetv2_are_those_of_its_table() -> None:
    _, taps = build("mobilenetv2", None, 32)
    assert taps == {stride: f"backbone.features.{index}" for stride, index in ((4, 3), (8, 6), (16, 13), (32, 17))}


def test_widths_are_multiples_of_eight() -> None:
    architecture, _ = build("mobilenetv2", stages("mobilenetv2", width=0.7))
    channels = [architecture.channels(name) for name in ("backbone.features.0", *blocks(architecture))]
    assert channels == [24, 8, 16, 16, *[24] * 3, *[48] * 4, *[64] * 3, *[112] * 3, 224]
    architecture, _ = build("resnet50", stages("resnet50", width=0.4))
    assert {architecture.channels(name) for name in blocks(architecture)} == {4 * 24, 4 * 48, 4 * 104, 4 * 208}
    assert architecture.channels("backbone.maxpool") == 24


def test_a_kept_block_has_its_published_name() -> None:
    shape = Shape(stages=[Stage(), Stage(blocks=1), Stage(blocks=2), Stage(), Stage(blocks=1)])
    architecture, taps = build("mobilenetv2", shape)
    kept = [1, 2, 4, 5, 7, 8, 9, 10, 11]
    assert blocks(architecture) == [f"backbone.features.{index}" for index in kept]
    assert list(taps) == [4, 8, 16]
    architecture, taps = build("efficientnet_lite0", Shape(stages=[Stage(), Stage(blocks=1), Stage()]), 8)
    assert blocks(architecture) == [f"backbone.blocks.{index}" for index in (0, 1, 3, 4)]
    architecture, _ = build("resnet18", Shape(stages=[Stage(blocks=1), Stage()]), 8)
    assert blocks(architecture) == ["backbone.layer1.0", "backbone.layer2.0", "backbone.layer2.1"]


def test_kernel_expansion_and_atrous_of_a_stage() -> None:
    changed = Stage(kernel=7, expansion=4, atrous=True)
    architecture, _ = build("efficientnet_lite1", Shape(stages=[*[Stage()] * 5, changed]), 32)
    ops = [architecture[name].op for name in blocks(architecture)]
    assert [op.kernel for op in ops] == [3, 3, 3, 3, 5, 5, 5, 3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7, 7]
    assert [op.expansion for op in ops] == [1] + [6] * 14 + [4] * 5
    assert [op.rate for op in ops] == [(1, 1)] * 16 + [(2, 2)] * 4  # the first block of the stage strides
    architecture, _ = build("efficientnet_lite1", Shape(stages=[*[Stage()] * 5, changed]), 16)
    assert [architecture[name].op.rate[0] for name in blocks(architecture)] == [1] * 15 + [2] + [4] * 4


@pytest.mark.parametrize(("name", "widths"), [("mobilenetv2", [1, 1, 1, 1, 2 / 3]), ("resnet50", [1, 1, 0.5, 0.5])])
def test_equal_widths_by_chance_add_no_shortcut(name: str, widths: list[float]) -> None:
    """A stage's first block projects in the published backbone, and so it does where the shape makes widths equal."""
    architecture, _ = build(name, Shape(stages=[Stage(width=width) for width in widths]), 8)
    first = {"mobilenetv2": "backbone.features.11", "resnet50": "backbone.layer3.0"}[name]
    (source,) = architecture[first].inputs
    assert architecture.channels(source) == architecture.channels(first)
    assert not architecture[first].op.adds_input(architecture.channels(source))


@pytest.mark.parametrize(
    ("name", "shape", "line"),
    [
        ("resnet18", [Stage()] * 5, r"^shape has 5 stages, but must have at most resnet18's 4$"),
        (
            "mobilenetv2",
            [Stage(), Stage(blocks=3)],
            r"^stages\[1\]\.blocks is 3, but must be at most mobilenetv2's 2: ",
        ),
        ("resnet50", [Stage(expansion=4)], r"^stages\[0\]\.expansion is 4, but in resnet50 it must be left out"),
        ("mobilenetv2", [Stage(expansion=2)], r"^stages\[0\]\.expansion is 2, but in mobilenetv2 it must be left out"),
        ("mobilenetv2", [Stage(), Stage(expansion=7)], r"^stages\[1\]\.expansion is 7, .* it must be at most 6$"),
        ("mobilenetv2", [Stage()] * 3, r"^output_stride is 16, but the backbone's strides give at most 8$"),
        ("xception65", [Stage()], r"^a shape is given, but xception65 has only the published one: leave it out$"),
    ],
)
def test_what_a_backbone_does_not_have_is_refused(name: str, shape: list[Stage], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        build(name, Shape(stages=shape))


def test_multi_grid_needs_the_whole_last_stage() -> None:
    g = Builder("resnet50")
    with pytest.raises(ValueError, match="multi_grid is true, but must be false on this shape"):
        BACKBONES["resnet50"](g, g.input(), 16, multi_grid=True, shape=Shape(stages=[*[Stage()] * 3, Stage(blocks=2)]))


@pytest.mark.parametrize(
    ("field", "value"), [("width", 0), ("width", 1.1), ("blocks", 0), ("kernel", 4), ("expansion", 1), ("colour", 1)]
)
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        Stage.model_validate({field: value})


def test_a_shape_is_data() -> None:
    shape = Shape(stages=[Stage(width=0.75, kernel=5), Stage(atrous=True)])
    assert Shape.model_validate_json(shape.model_dump_json(exclude_defaults=True)) == shape
