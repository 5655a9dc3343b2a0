"""Backbones with torchvision's parameter names where it has them, so that its published checkpoints load by name.

Each function adds its nodes in the scope `backbone` and returns the names of the feature maps that networks build on.
`BACKBONES` holds those that DeepLab and DPC can use, by name.
"""

from typing import Protocol

from baselines.backbones.efficientnet_lite import efficientnet_lite0, efficientnet_lite1, efficientnet_lite2
from baselines.backbones.features import Features
from baselines.backbones.mobilenetv2 import mobilenetv2
from baselines.backbones.resnet import resnet18, resnet50, resnet101
from baselines.backbones.shape import Shape, Stage
from baselines.backbones.xception import xception65, xception71
from nasseg.graph import Builder


class Backbone(Protocol):
    """A function that adds a backbone to a graph: output at `output_stride`, low-level features at stride 4.

    `multi_grid` multiplies the rates of the last stage's three convolutions by 1, 2 and 4; a backbone whose last stage
    is not three convolutions raises `ValueError`. `shape` leaves out parts of the published backbone; Xception, which
    has none to leave out, raises `ValueError`.
    """

    def __call__(
        self, g: Builder, image: str, output_stride: int, *, multi_grid: bool = False, shape: Shape | None = None
    ) -> Features:
        """The names of the features that the nodes just added compute from `image`."""


BACKBONES: dict[str, Backbone] = {
    "mobilenetv2": mobilenetv2,
    "efficientnet_lite0": efficientnet_lite0,
    "efficientnet_lite1": efficientnet_lite1,
    "efficientnet_lite2": efficientnet_lite2,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "xception65": xception65,
    "xception71": xception71,
}

__all__ = ["BACKBONES", "Backbone", "Features", "Shape", "Stage"]
