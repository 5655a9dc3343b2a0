"""Layouts by parameter count (torchvision's and the released Xception's, without classifiers), strides and rates."""

import pytest

from baselines.backbones import BACKBONES
from baselines.backbones.vgg import vgg16
from nasseg.graph import Architecture, Builder

PARAMS = {
    "mobilenetv2": 2_223_872 - 412_160,  # without the last 1×1 convolution, 320 to 1280 channels
    "efficientnet_lite0": 2_958_848,  # of the published files, without running statistics
    "efficientnet_lite1": 3_723_520,
    "efficientnet_lite2": 4_357_952,
    "resnet18": 11_176_512,
    "resnet50": 23_508_032,
    "resnet101": 42_500_160,
    "xception65": 37_867_312,
    "xception71": 40_289_736,
}


def alone(name: str, output_stride: int = 16, **options: bool) -> tuple[Architecture, str, str]:
    """The backbone by itself, and the names of its output and of its low-level features."""
    g = Builder(name)
    features = BACKBONES[name](g, g.input(), output_stride, **options)
    return g.build(features.output, features.low_level), features.output, features.low_level


@pytest.mark.parametrize("name", BACKBONES)
def test_parameters_are_the_published_networks(name: str) -> None:
    assert alone(name)[0].describe((32, 32)).params == PARAMS[name]


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_output_stride_changes_the_size_and_no_weight(name: str, output_stride: int) -> None:
    architecture, output, low_level = alone(name, output_stride)
    description = architecture.describe((65, 97))
    shapes = {node.name: node.shape for node in description.nodes}
    assert shapes[output][1:] == (64 // output_stride + 1, 96 // output_stride + 1)
    assert shapes[low_level][1:] == (17, 25)
    assert description.params == PARAMS[name]


def test_unreachable_output_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="output_stride is 64"):
        alone("resnet50", 64)


@pytest.mark.parametrize(
    ("output_stride", "layer3", "layer4"),
    [(32, [1] * 6, [1, 1, 1]), (16, [1] * 6, [1, 2, 2]), (8, [1, 2, 2, 2, 2, 2], [2, 4, 4])],
)
def test_resnet_rates_are_torchvisions(output_stride: int, layer3: list[int], layer4: list[int]) -> None:
    architecture, *_ = alone("resnet50", output_stride)
    for layer, rates in (("layer3", layer3), ("layer4", layer4)):
        assert [architecture[f"backbone.{layer}.{i}"].op.rate for i in range(len(rates))] == [(r, r) for r in rates]


@pytest.mark.parametrize(("output_stride", "rates"), [(16, [2, 4, 8]), (8, [4, 8, 16])])
def test_multi_grid_multiplies_the_last_stages_rate(output_stride: int, rates: list[int]) -> None:
    architecture, *_ = alone("resnet101", output_stride, multi_grid=True)
    assert [architecture[f"backbone.layer4.{i}"].op.rate[0] for i in range(3)] == rates
    assert architecture["backbone.layer3.22"].op.rate[0] == rates[0] // 2
    architecture, *_ = alone("xception71", output_stride, multi_grid=True)
    assert [architecture[f"backbone.exit.block2.conv{i}"].op.rate[0] for i in (1, 2, 3)] == rates


@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnet_lite0", "resnet18"])
def test_multi_grid_needs_three_convolutions(name: str) -> None:
    with pytest.raises(ValueError, match=f"must be false on {name}"):
        alone(name, multi_grid=True)


def test_resnet_has_torchvisions_names() -> None:
    names = {name for name, _ in alone("resnet50")[0].network().named_parameters()}
    assert {"backbone.conv1.weight", "backbone.bn1.bias", "backbone.layer4.2.bn3.weight"} <= names
    assert {"backbone.layer2.0.downsample.0.weight", "backbone.layer2.0.downsample.1.bias"} <= names


def test_xception_strides_in_the_last_convolution_of_a_block_and_its_shortcut() -> None:
    architecture, *_ = alone("xception65", 32)
    strided = [node.name for node in architecture.nodes if getattr(node.op, "stride", 1) == 2]
    blocks = ("entry.block1", "entry.block2", "entry.block3", "exit.block1")
    assert strided == ["backbone.entry.conv1"] + [f"backbone.{b}.{n}" for b in blocks for n in ("conv3", "shortcut")]
    assert not any(node.op.op == "max_pool" for node in architecture.nodes)
    assert sum(node.name.startswith("backbone.middle.") and node.op.op == "add" for node in architecture.nodes) == 16


def test_vgg_is_fully_convolutional() -> None:
    g = Builder("vgg16")
    maps = vgg16(g, g.input())
    description = g.build(*maps).describe((65, 97))
    assert description.params == 138_357_544 - (4096 * 1000 + 1000)
    shapes = {node.name: node.shape for node in description.nodes}
    assert [shapes[name] for name in maps] == [(256, 9, 13), (512, 5, 7), (4096, 3, 4)]
