from collections.abc import Callable

import pytest
import torch

from baselines.fcn import fcn8s, fcn16s, fcn32s, fcn_resnet50, fcn_resnet101
from nasseg.graph import Architecture


@pytest.mark.parametrize(
    ("make", "params"),
    [
        (fcn8s, 134_489_759),  # the paper's FCN-8s with learned upsampling
        (fcn16s, 134_489_759 - (256 * 21 + 21) - 21 * 21 * (4 * 4 + 16 * 16) + 21 * 21 * 32 * 32),
        (
            fcn32s,
            134_260_544 + (4096 * 21 + 21) + 21 * 21 * 64 * 64,
        ),  # VGG-16 without its classifier, score, upsampling
    ],
)
def test_vgg_networks_have_the_papers_parameters(make: Callable[[int], Architecture], params: int) -> None:
    assert make(21).describe((64, 64)).params == params


@pytest.mark.parametrize(("make", "params"), [(fcn_resnet50, 35_322_218), (fcn_resnet101, 54_314_346)])
def test_resnet_networks_have_torchvisions_parameters(make: Callable[[int], Architecture], params: int) -> None:
    description = make(21).describe((64, 64))
    assert description.params_training == params
    assert description.params == params - (1024 * 256 * 9 + 2 * 256 + 256 * 21 + 21)  # the auxiliary head
    assert {node.name: node.shape for node in description.nodes}["head.logits"] == (21, 8, 8)


def test_backbone_has_torchvisions_names() -> None:
    names = {name for name, _ in fcn8s(fc_channels=8).network().named_parameters()}
    convolutions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    expected = [f"features.{index}" for index in convolutions] + ["classifier.0", "classifier.3"]
    found = {name for name in names if name.startswith("backbone.")}
    assert found == {f"backbone.{layer}.{kind}" for layer in expected for kind in ("weight", "bias")}


@torch.no_grad()
def test_upsampling_starts_as_bilinear() -> None:
    network = fcn8s(3, fc_channels=8).network()
    coarse = torch.randn(1, 3, 5, 6)
    upsampled = network.get_submodule("head.up")(coarse)
    expected = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear", align_corners=False)
    assert upsampled.shape == expected.shape
    torch.testing.assert_close(upsampled[..., 8:-8, 8:-8], expected[..., 8:-8, 8:-8])  # the border sees zeros


@torch.no_grad()
def test_fcn8s_adds_the_scores_of_three_strides() -> None:
    network = fcn8s(3, fc_channels=8).network().eval()
    image = torch.randn(1, 3, 64, 96)
    for stride in (8, 16):
        score = network.get_submodule(f"head.logits{stride}")
        score.weight.zero_()
        score.bias.fill_(1.0)
    last = network.get_submodule("head.logits32")
    last.weight.zero_()
    last.bias.fill_(1.0)
    middle = network(image)[..., 31:33, 47:49]
    torch.testing.assert_close(middle, torch.full_like(middle, 3.0))
