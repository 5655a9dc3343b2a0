"""DeepLabV3 (Chen et al., arXiv 1706.05587): an atrous backbone, ASPP, a classifier."""

from collections.abc import Callable
from typing import Literal

from baselines.backbones import BACKBONES
from baselines.heads import aspp, classifier, conv3x3
from nasseg.graph import Architecture, Builder


def _on(backbone: str) -> Callable[..., Architecture]:
    def deeplabv3(
        num_classes: int = 19,
        *,
        output_stride: Literal[8, 16, 32] = 16,
        multi_grid: bool = False,
        separable: bool = False,
        image_pooling: bool = True,
        filters: int = 256,
        last_conv: bool = False,
    ) -> Architecture:
        """DeepLabV3; `separable` makes its 3×3 convolutions separable, `multi_grid` is the backbone's (§3.2.1).

        `last_conv` puts torchvision's 3×3 convolution between ASPP and the classifier, which the paper does not have.
        """
        g = Builder(f"deeplabv3-{backbone}")
        image = g.input()
        features = BACKBONES[backbone](g, image, output_stride, multi_grid=multi_grid)
        x = aspp(g, features.output, output_stride, channels=filters, separable=separable, image_pooling=image_pooling)
        if last_conv:
            x = g.add("head.conv", conv3x3(filters, separable=separable), x)
        return g.build(classifier(g, x, image, num_classes))

    return deeplabv3


deeplabv3_mobilenetv2 = _on("mobilenetv2")
deeplabv3_resnet50 = _on("resnet50")
deeplabv3_resnet101 = _on("resnet101")
deeplabv3_xception65 = _on("xception65")
deeplabv3_xception71 = _on("xception71")
