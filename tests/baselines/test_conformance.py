"""Every baseline under its suite. A new one is one line in `BASELINES`, with options that keep it small."""

from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points

import pytest

from baselines.deeplabv3 import (
    deeplabv3_mobilenetv2,
    deeplabv3_resnet50,
    deeplabv3_resnet101,
    deeplabv3_xception65,
    deeplabv3_xception71,
)
from baselines.deeplabv3plus import (
    deeplabv3plus_efficientnet_lite0,
    deeplabv3plus_efficientnet_lite1,
    deeplabv3plus_efficientnet_lite2,
    deeplabv3plus_mobilenetv2,
    deeplabv3plus_resnet18,
    deeplabv3plus_resnet50,
    deeplabv3plus_resnet101,
    deeplabv3plus_xception65,
    deeplabv3plus_xception71,
)
from baselines.encoder_decoder.handcrafted import aspp, context_path, fpn, lraspp, ppliteseg, unet_decoder
from baselines.fcn import fcn8s, fcn16s, fcn32s, fcn_resnet50, fcn_resnet101
from baselines.pspnet import pspnet_resnet50
from baselines.stdc import stdc1, stdc1_classifier, stdc2, stdc2_classifier
from baselines.unet import unet
from baselines.unetplusplus import unetplusplus
from nasseg.graph import Architecture
from nasseg.testing import BaselineCase, BaselineConformance
from search_spaces.auto_deeplab.published import auto_deeplab_l, auto_deeplab_m, auto_deeplab_s

BASELINES: dict[str, Callable[..., Architecture]] = {
    "fcn32s": partial(fcn32s, fc_channels=64),
    "fcn16s": partial(fcn16s, fc_channels=64),
    "fcn8s": partial(fcn8s, fc_channels=64),
    "fcn-resnet50": fcn_resnet50,
    "fcn-resnet101": fcn_resnet101,
    "unet": unet,
    "unetplusplus": unetplusplus,
    "stdc1": stdc1,
    "stdc2": stdc2,
    "stdc1-classifier": stdc1_classifier,
    "stdc2-classifier": stdc2_classifier,
    "deeplabv3-mobilenetv2": partial(deeplabv3_mobilenetv2, filters=16),
    "deeplabv3-resnet50": partial(deeplabv3_resnet50, filters=16),
    "deeplabv3-resnet101": partial(deeplabv3_resnet101, filters=16),
    "deeplabv3-xception65": partial(deeplabv3_xception65, filters=16),
    "deeplabv3-xception71": partial(deeplabv3_xception71, filters=16),
    "deeplabv3plus-mobilenetv2": partial(deeplabv3plus_mobilenetv2, filters=16),
    "deeplabv3plus-efficientnet_lite0": partial(deeplabv3plus_efficientnet_lite0, filters=16),
    "deeplabv3plus-efficientnet_lite1": partial(deeplabv3plus_efficientnet_lite1, filters=16),
    "deeplabv3plus-efficientnet_lite2": partial(deeplabv3plus_efficientnet_lite2, filters=16),
    "deeplabv3plus-resnet50": partial(deeplabv3plus_resnet50, filters=16),
    "deeplabv3plus-resnet101": partial(deeplabv3plus_resnet101, filters=16),
    "deeplabv3plus-xception65": partial(deeplabv3plus_xception65, filters=16),
    "deeplabv3plus-xception71": partial(deeplabv3plus_xception71, filters=16),
    "deeplabv3plus-resnet18": partial(deeplabv3plus_resnet18, filters=16),
    "aspp": partial(aspp, width=0.25),
    "lraspp": lraspp,
    "fpn": partial(fpn, backbone="efficientnet_lite0", width=0.25),
    "unet_decoder": partial(unet_decoder, width=0.5),
    "context_path": partial(context_path, backbone="resnet18", width=0.25),
    "ppliteseg": partial(ppliteseg, width=0.5),
    "pspnet-resnet50": pspnet_resnet50,
    "auto_deeplab-s": partial(auto_deeplab_s, filters=4, head_filters=16),
    "auto_deeplab-m": partial(auto_deeplab_m, filters=5, head_filters=16),
    "auto_deeplab-l": partial(auto_deeplab_l, filters=6, head_filters=16),
}

LONG = (
    "deeplabv3-mobilenetv2",
    "deeplabv3plus-resnet50",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "resnet101",
    "deeplabv3-xception65",
    "xception71",
    "stdc2",
    "stdc2-classifier",
    "fcn16s",
    "fcn32s",
    "auto_deeplab-m",
    "auto_deeplab-l",
)
"""Relatives that have the operators and the parts of another one here, only more or fewer of them."""

BEYOND_FLOAT16 = (
    "fcn-resnet101",
    "deeplabv3-mobilenetv2",
    "deeplabv3-resnet101",
    "deeplabv3plus-resnet101",
    "deeplabv3-xception65",
    "auto_deeplab-s",
    "auto_deeplab-m",
    "auto_deeplab-l",
)


CASES = [
    pytest.param(
        BaselineCase(make, one_per_image=name.endswith("-classifier"), float16=name not in BEYOND_FLOAT16),
        id=name,
        marks=pytest.mark.long if name.endswith(LONG) else (),
    )
    for name, make in BASELINES.items()
]


def test_every_baseline_is_here() -> None:
    assert {point.name for point in entry_points(group="nasseg.baselines")} <= set(BASELINES)


@pytest.mark.parametrize("case", CASES)
class TestBaselines(BaselineConformance):
    pass
