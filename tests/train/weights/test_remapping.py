"""Remapped weights: exact where nothing, nothing but zeros, or no residual is left out; complete for any shape."""

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from baselines.backbones import BACKBONES, Shape, Stage
from baselines.deeplabv3plus import deeplabv3plus_mobilenetv2
from baselines.fcn import fcn8s
from nasseg.graph import Builder
from nasseg.network import Network
from nasseg.train.weights.loading import load_backbone, load_pretrained
from nasseg.train.weights.remapping import OtherBackbone, remapped

STAGES = {"mobilenetv2": 7, "efficientnet_lite0": 7, "efficientnet_lite1": 7, "resnet18": 4, "resnet50": 4}
every_backbone = pytest.mark.parametrize("name", STAGES)
RESIDUALS = {
    "mobilenetv2": ["features.3.conv.3"],
    "efficientnet_lite0": ["blocks.13.conv.3", "blocks.14.conv.3"],
    "efficientnet_lite1": ["blocks.6.conv.3"],
    "resnet18": ["layer2.1.bn2"],
    "resnet50": ["layer3.4.bn3", "layer3.5.bn3"],
}
"""The last norms of the residual blocks that end a stage."""
RESIDUAL_STAGE = {
    "mobilenetv2": (1, 1),
    "efficientnet_lite0": (5, 2),
    "efficientnet_lite1": (2, 2),
    "resnet18": (1, 1),
    "resnet50": (2, 4),
}
"""That stage, and how many blocks it has without them."""


def network(name: str, shape: Shape | None = None, output_stride: int = 16, seed: int = 0) -> Network:
    """A backbone by itself: one output, the features of stage `backbone`, with norms as after a training."""
    g = Builder(name)
    torch.manual_seed(seed)
    built = g.build(BACKBONES[name](g, g.input(), output_stride, shape=shape).output).network().eval()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.2)
            module.running_mean.normal_(std=0.2)  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr, operator]
    return built


def published(name: str) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network(name, seed=1).state_dict().items()}


def same(name: str, **changed: object) -> Shape:
    return Shape(stages=(Stage.model_validate(changed),) * STAGES[name])


def image(size: tuple[int, int] = (64, 63)) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def outputs(name: str, shape: Shape | None, weights: dict[str, Tensor]) -> Tensor:
    loaded = network(name, shape)
    report = load_backbone(loaded, weights)
    assert not report.missing
    assert not report.other_shape
    result: Tensor = loaded(image())
    assert result.std() > 0
    return result


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@every_backbone
def test_an_unchanged_shape_takes_the_weights_bit_for_bit(name: str) -> None:
    weights = published(name)
    for shape in (None, same(name)):
        loaded = network(name, shape)
        report = load_backbone(loaded, weights)
        assert report.complete
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, weights[key]), key


@every_backbone
@pytest.mark.parametrize("kernel", [5, 7])
def test_larger_kernels_give_equal_outputs(name: str, kernel: int) -> None:
    weights = published(name)
    assert_close(outputs(name, same(name, kernel=kernel), weights), outputs(name, None, weights))


def test_a_smaller_kernel_is_the_middle_of_the_published_one() -> None:
    weights = published("efficientnet_lite0")
    smaller = remapped(weights, network("efficientnet_lite0", same("efficientnet_lite0", kernel=3)).architecture)
    name = "backbone.blocks.3.conv.1.0.weight"
    assert torch.equal(smaller[name], weights[name][..., 1:-1, 1:-1])


INSIDE = {
    "mobilenetv2": r"(features\.(?!1\.)\d+)\.conv\.[01]\.1",
    "efficientnet_lite0": r"(blocks\.(?!0\.)\d+)\.conv\.[01]\.1",
    "efficientnet_lite1": r"(blocks\.(?!0\.)\d+)\.conv\.[01]\.1",
    "resnet18": r"(layer\d\.\d\.bn1)",
    "resnet50": r"(layer\d\.\d\.bn[12])",
}
"""Norms of channels that only a block sees; equal groups stand for equal channels. All others are of a whole stage."""


def with_zeros(name: str, kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published weights with channels that are zero, drawn by lot: as many as `kept` has fewer."""
    weights, generator = published(name), torch.Generator().manual_seed(3)
    drawn: dict[object, Tensor] = {}
    for key in [key for key in weights if key.endswith("running_mean")]:
        inside, size, fewer = re.search(INSIDE[name], key), len(weights[key]), len(kept[key])
        place = inside[1] if inside else (size, fewer)  # which tells stages apart
        zero = drawn.setdefault(place, torch.randperm(size, generator=generator)[: size - fewer])
        for tensor in ("weight", "bias"):
            weights[key.replace("running_mean", tensor)][zero] = 0
    return weights


@every_backbone
@pytest.mark.parametrize(
    "widths",
    # the last two make neighbouring stages equally wide: layer3 and layer4, stages 3 and 4 of inverted residuals
    [[0.5] * 7, [0.75] * 7, [1, 1, 1, 0.5, 1, 0.75, 0.5], [0.75, 1, 1, 1, 0.7, 0.75, 1]],
    ids=["half", "most", "equal layers", "equal stages"],
)
def test_channels_that_are_zero_can_be_left_out(name: str, widths: list[float]) -> None:
    narrow = Shape(stages=[Stage(width=width) for width in widths[: STAGES[name]]])
    weights = with_zeros(name, network(name, narrow).state_dict())
    everything, kept = outputs(name, None, weights), outputs(name, narrow, weights)
    last = [key for key in weights if key.endswith("running_mean")][-1]
    channels = weights[last.replace("running_mean", "weight")] != 0
    assert not everything[:, ~channels].any()
    assert channels.sum() == kept.shape[1]
    assert_close(kept, everything[:, channels])


@every_backbone
def test_a_residual_block_that_adds_nothing_can_be_left_out(name: str) -> None:
    weights = published(name)
    for norm in RESIDUALS[name]:
        for tensor in ("weight", "bias"):
            weights[f"backbone.{norm}.{tensor}"].zero_()
    expected = outputs(name, None, weights)
    blocks = [RESIDUAL_STAGE[name][1] if place == RESIDUAL_STAGE[name][0] else None for place in range(STAGES[name])]
    shorter = Shape(stages=[Stage(blocks=count) for count in blocks])
    nodes, left = ({node.name for node in network(name, shape).architecture.nodes} for shape in (None, shorter))
    assert nodes - left == {f"backbone.{norm.split('.conv.')[0].split('.bn')[0]}" for norm in RESIDUALS[name]}
    assert_close(outputs(name, shorter, weights), expected)


MOST_BLOCKS = {
    "mobilenetv2": (1, 2, 3, 4, 3, 3, 1),
    "efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "resnet18": (2, 2, 2, 2),
    "resnet50": (3, 4, 6, 3),
}


@st.composite
def shapes(draw: st.DrawFn) -> tuple[str, Shape, int]:
    """A backbone, a shape that it can have, and an output stride that this reaches."""
    name = draw(st.sampled_from(sorted(STAGES)))
    expands = not name.startswith("resnet")
    strides = [4, 8, 16, 32] if not expands else [2, 4, 8, 16, 16, 32, 32]
    count = draw(st.integers(2 if not expands else 3, STAGES[name]))
    stages = [
        Stage(
            width=draw(st.floats(0.2, 1)),
            blocks=draw(st.integers(1, MOST_BLOCKS[name][place])),
            kernel=draw(st.sampled_from([None, 3, 5, 7])),
            expansion=draw(st.none() | st.integers(2, 6)) if expands and place else None,
            atrous=draw(st.booleans()),
        )
        for place in range(count)
    ]
    return name, Shape(stages=stages), draw(st.sampled_from([s for s in (8, 16, 32) if s <= strides[count - 1]]))


@settings(max_examples=15)
@given(shapes())
def test_any_shape_is_loaded_completely(drawn: tuple[str, Shape, int]) -> None:
    name, shape, output_stride = drawn
    reshaped, weights = network(name, shape, output_stride), published(name)
    with torch.no_grad():
        for tensor in reshaped.state_dict().values():
            tensor.fill_(7)
    report = load_backbone(reshaped, weights)
    assert not report.missing
    assert not report.other_shape
    assert set(report.matched) == set(reshaped.state_dict())
    left = {name.rpartition(".")[0] for name in report.unexpected}
    assert left == {n.rpartition(".")[0] for n in weights} - {n.rpartition(".")[0] for n in reshaped.state_dict()}
    for key, value in reshaped.state_dict().items():
        assert value.ndim == 0 or not (value == 7).any(), key
    with torch.no_grad():
        assert reshaped(image((32, 40))).isfinite().all()


def test_channels_follow_their_importance_in_all_that_share_them() -> None:
    """ResNet-18's stem and first stage are one sum, in which the channels with the largest scales stay."""
    weights = published("resnet18")
    strong = [3, 5, 8, 13, 21, 34, 55, 60]
    for norm in ("bn1", "layer1.0.bn2", "layer1.1.bn2"):
        weights[f"backbone.{norm}.weight"][strong] *= 10
    narrow = remapped(weights, network("resnet18", Shape(stages=[Stage(width=1 / 8), Stage()]), 8).architecture)
    for norm in ("bn1", "layer1.0.bn2", "layer1.1.bn2"):
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            name = f"backbone.{norm}.{tensor}"
            assert torch.equal(narrow[name], weights[name][strong])
    assert torch.equal(narrow["backbone.conv1.weight"], weights["backbone.conv1.weight"][strong])
    name = "backbone.layer2.0.downsample.0.weight"
    assert torch.equal(narrow[name], weights[name][:, strong])


def test_the_weights_given_stay_as_they_are() -> None:
    weights = published("mobilenetv2")
    before = {name: tensor.clone() for name, tensor in weights.items()}
    remapped(weights, network("mobilenetv2", same("mobilenetv2", width=0.5, kernel=5)).architecture)
    assert all(torch.equal(weights[name], before[name]) for name in before)


def unnamed(built: Network) -> Network:
    """The same network without the name of its published backbone, as from an older file."""
    loaded = built.architecture.replace(backbone=None).network()
    loaded.load_state_dict(built.state_dict())
    return loaded


@pytest.mark.parametrize(
    ("of", "into", "line"),
    [
        ("resnet50", "resnet18", "backbone.layer1.0.conv3.weight of the weights has no place in the network's block"),
        ("resnet18", "resnet50", "backbone.layer1.0.conv1.weight of the weights is 3×3, but the network's is 1×1"),
        ("efficientnet_lite0", "efficientnet_lite1", "has 24 channels where the weights have 40"),
        ("efficientnet_lite1", "efficientnet_lite0", "has 40 channels where the weights have 24"),
        ("efficientnet_lite1", "efficientnet_lite2", "has 48 channels where the weights have 40"),
    ],
)
def test_weights_of_another_backbone_are_refused(of: str, into: str, line: str) -> None:
    with pytest.raises(ValueError, match=rf"^[^\n]*{line}[^\n]*: use weights of (its|the network's) backbone$"):
        load_backbone(unnamed(network(into)), published(of))


RELATIVES = (
    ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"),
    ("mobilenetv2",),
    ("resnet18", "resnet50", "resnet101"),
)


@pytest.mark.parametrize("relatives", RELATIVES, ids=lambda names: names[0])
@pytest.mark.parametrize("width", [1.0, 0.25])
def test_a_network_of_any_shape_takes_the_weights_of_its_backbone_and_of_no_relative(
    relatives: tuple[str, ...], width: float
) -> None:
    """Narrow and short ones fit into all relatives by names and shapes alone."""
    for into in relatives:
        shape = Shape(stages=[Stage(width=width, blocks=1)] * (4 if into.startswith("resnet") else 5))
        for of in relatives:
            built = network(into, shape)
            before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
            if of == into:
                assert not load_backbone(built, published(of)).missing
                continue
            with pytest.raises(OtherBackbone, match=rf"^w .*, but {into}, the network's backbone, is published"):
                load_backbone(built, published(of), "w")
            assert all(torch.equal(tensor, before[name]) for name, tensor in built.state_dict().items())


def test_a_short_narrow_lite0_fits_into_lite2_by_names_and_shapes_alone() -> None:
    """So shapes are no way to tell; the architecture must name its backbone."""
    shape = Shape(stages=[Stage(width=0.5, blocks=1)] * 2)
    small = network("efficientnet_lite0", shape, output_stride=4)
    assert not load_backbone(unnamed(small), published("efficientnet_lite2")).missing
    with pytest.raises(OtherBackbone, match=r"has backbone\.blocks\.15\.conv\.2\.weight with 208 output channels"):
        load_backbone(small, published("efficientnet_lite2"))


def test_a_trained_model_gives_its_backbone_to_a_network_of_the_same_shape() -> None:
    trained = network("mobilenetv2", same("mobilenetv2", width=0.5), seed=4)
    other = network("mobilenetv2", same("mobilenetv2", width=0.5), seed=5)
    assert load_backbone(other, trained.state_dict()).complete
    assert all(torch.equal(tensor, trained.state_dict()[name]) for name, tensor in other.state_dict().items())


def test_weights_of_a_narrower_backbone_are_refused() -> None:
    with pytest.raises(ValueError, match=r"backbone\.features\.0 has 32 channels where the weights have 16"):
        load_backbone(
            unnamed(network("mobilenetv2")), network("mobilenetv2", same("mobilenetv2", width=0.5)).state_dict()
        )


def test_backbones_of_other_operators_are_left_to_be_reported() -> None:
    """VGG-16, whose width and blocks are no decisions."""
    weights = dict(fcn8s(fc_channels=8).network().state_dict())
    wider = fcn8s(fc_channels=16).network()
    report = load_backbone(wider, {name: tensor for name, tensor in weights.items() if name.startswith("backbone.")})
    assert report.other_shape
    assert report.other_shape[0].startswith("backbone.classifier.0.weight (8, 512, 7, 7) for (16, 512, 7, 7)")


def test_a_whole_network_takes_the_narrow_backbone(tmp_path: Path) -> None:
    path = tmp_path / "mobilenetv2.safetensors"
    weights = {name.removeprefix("backbone."): tensor for name, tensor in published("mobilenetv2").items()}
    save_file(weights, path)
    narrow = deeplabv3plus_mobilenetv2(3, filters=8, shape=same("mobilenetv2", width=0.75, kernel=5)).network()
    head = narrow.get_parameter("head.logits.weight").clone()
    report = load_pretrained(narrow, path)
    assert len(report.matched) == len(weights)
    assert torch.equal(narrow.get_parameter("head.logits.weight"), head)
