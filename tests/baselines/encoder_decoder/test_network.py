"""Networks of designs: the handcrafted ones equal what their papers say, and every part can be combined."""

from typing import get_args

import pytest
import torch

from baselines.deeplabv3 import deeplabv3_mobilenetv2
from baselines.deeplabv3plus import deeplabv3plus_efficientnet_lite1, deeplabv3plus_mobilenetv2, deeplabv3plus_resnet50
from baselines.encoder_decoder import DESIGNS, Design, Level, encoder_decoder
from baselines.encoder_decoder.design import Context, Convolution, Fusion, Lateral
from baselines.encoder_decoder.handcrafted import aspp, deeplabv3plus, lraspp, ppliteseg
from nasseg.graph import Architecture

SIZE = (65, 49)
SMALL = {"width": 0.25, "context_width": 64}


def width_of(architecture: Architecture, node: str) -> int:
    return architecture.channels(node)


def test_deeplab_is_the_baseline_of_the_same_name() -> None:
    assert deeplabv3plus(19).key == deeplabv3plus_mobilenetv2(19).key
    assert deeplabv3plus(19, backbone="efficientnet_lite1").key == deeplabv3plus_efficientnet_lite1(19).key
    assert deeplabv3plus(19, backbone="resnet50").key == deeplabv3plus_resnet50(19).key
    assert aspp(19).key == deeplabv3_mobilenetv2(19, separable=True).key


@torch.no_grad()
def test_the_logits_of_lr_aspp_are_the_sum_of_two_maps_logits() -> None:
    torch.manual_seed(0)
    network = lraspp(5).network().eval()
    x = torch.randn(1, 3, 64, 64)
    seen = {}
    for name in ("decoder.stride8.upsample", "decoder.stride8.concat", "head.logits"):
        network.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
    network(x)
    deep, both = seen["decoder.stride8.upsample"], seen["decoder.stride8.concat"]
    weight, bias = network.get_parameter("head.logits.weight"), network.get_parameter("head.logits.bias")
    low = both[:, deep.shape[1] :]
    assert low.shape[1] == 32, "MobileNetV2's channels at stride 8"
    logits = [
        torch.nn.functional.conv2d(part, kernel)
        for part, kernel in ((deep, weight[:, : deep.shape[1]]), (low, weight[:, deep.shape[1] :]))
    ]
    torch.testing.assert_close(sum(logits) + bias[:, None, None], seen["head.logits"])


def test_the_widths_of_pp_liteseg_fall_towards_the_image() -> None:
    network = ppliteseg(19)
    assert [width_of(network, f"decoder.stride{stride}.conv1") for stride in (16, 8)] == [64, 32]
    assert width_of(network, "context.projection") == 128


@pytest.mark.parametrize("name", DESIGNS)
def test_the_width_of_a_handcrafted_network_scales_all_of_it(name: str) -> None:
    full, half = (
        encoder_decoder(name, DESIGNS[name].model_copy(update={"width": width}), 11).describe((96, 128))
        for width in (1.0, 0.5)
    )
    assert 0.2 < half.madds / full.madds < 0.4
    assert 0.2 < half.params / full.params < 0.4


@torch.no_grad()
def check(design: Design) -> Architecture:
    """Run a network on a batch of odd images; logits must have their size."""
    torch.manual_seed(0)
    architecture = encoder_decoder("any", design, 4)
    logits = architecture.network().train()(torch.randn(2, 3, *SIZE))
    assert logits.shape == (2, 4, *SIZE)
    assert logits.isfinite().all()
    return architecture


@pytest.mark.parametrize("context", get_args(Context))
def test_every_context_module_has_the_width_asked_for(context: Context) -> None:
    network = check(Design(context=context, output_stride=16, **SMALL))
    (source,) = network["head.logits"].inputs
    assert network.channels(source) == (80 if context == "none" else 16)


@pytest.mark.parametrize("fusion", get_args(Fusion))
@pytest.mark.parametrize("lateral", get_args(Lateral))
def test_every_fusion_goes_with_every_lateral_that_fits(fusion: Fusion, lateral: Lateral) -> None:
    if lateral == "none" and fusion not in ("concat", "feature_fusion"):
        pytest.skip("the map must have the width of the deeper one")
    level = Level(fusion=fusion, lateral=lateral, width=64, lateral_share=0.5)
    network = check(Design(level4=level, refine="conv1x1", context="gate", **SMALL))
    (source,) = network["head.logits"].inputs
    assert network.channels(source) == 16


@pytest.mark.parametrize("refine", get_args(Convolution))
@pytest.mark.parametrize("final", get_args(Convolution))
def test_every_convolution_can_refine_and_finish(refine: Convolution, final: Convolution) -> None:
    level = Level(fusion="add", width=64)
    design = Design(level16=level, level4=level, refine=refine, repeats=2, final=final, upsampling=2, **SMALL)
    network = check(design)
    names = {node.name for node in network.nodes}
    assert ("decoder.stride16.conv2" in names) == (refine != "none")
    assert ("head.conv" in names) == (final != "none")


def test_the_maps_of_all_levels_are_added_up_at_the_size_of_the_last() -> None:
    level = Level(fusion="add", width=64)
    network = check(Design(level16=level, level8=level, merge="sum", context="gate", **SMALL))
    assert len(network["decoder.merge.sum"].inputs) == 3
    assert network.channels("decoder.merge.sum") == 16


def test_the_image_is_resized_inside_the_network() -> None:
    full, half = (encoder_decoder("any", Design(input_scale=scale), 11).describe((128, 128)) for scale in (1.0, 0.5))
    assert full.madds == pytest.approx(4 * half.madds, rel=0.01)
    assert half.nodes[-1].shape == full.nodes[-1].shape == (11, 128, 128)
