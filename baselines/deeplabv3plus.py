"""DeepLabV3+ (Chen et al., arXiv 1802.02611): a backbone, ASPP, and a decoder that brings back stride 4."""

from collections.abc import Callable
from typing import Literal

from baselines.backbones import BACKBONES, Shape
from baselines.heads import aspp, classifier, decoder
from nasseg.graph import Architecture, Builder


def _on(backbone: str) -> Callable[..., Architecture]:
    def deeplabv3plus(
        num_classes: int = 19,
        *,
        output_stride: Literal[8, 16, 32] = 16,
        multi_grid: bool = False,
        separable: bool = True,
        separable_decoder: bool | None = None,
        image_pooling: bool = True,
        filters: int = 256,
        shape: Shape | None = None,
    ) -> Architecture:
        """DeepLabV3+; `separable` makes the 3×3 convolutions of ASPP and the decoder separable (§3.2).

        `separable_decoder` sets the decoder's apart, `multi_grid` is the backbone's (arXiv 1706.05587, §3.2.1), and so
        is `shape`.
        """
        g = Builder(f"deeplabv3plus-{backbone}")
        image = g.input()
        features = BACKBONES[backbone](g, image, output_stride, multi_grid=multi_grid, shape=shape)
        high = aspp(
            g, features.output, output_stride, channels=filters, separable=separable, image_pooling=image_pooling
        )
        separable_decoder = separable if separable_decoder is None else separable_decoder
        x = decoder(g, high, features.low_level, channels=filters, separable=separable_decoder)
        return g.build(classifier(g, x, image, num_classes))

    return deeplabv3plus


deeplabv3plus_mobilenetv2 = _on("mobilenetv2")
deeplabv3plus_efficientnet_lite0 = _on("efficientnet_lite0")
deeplabv3plus_efficientnet_lite1 = _on("efficientnet_lite1")
deeplabv3plus_efficientnet_lite2 = _on("efficientnet_lite2")
deeplabv3plus_resnet18 = _on("resnet18")
deeplabv3plus_resnet50 = _on("resnet50")
deeplabv3plus_resnet101 = _on("resnet101")
deeplabv3plus_xception65 = _on("xception65")
deeplabv3plus_xception71 = _on("xception71")
