"""DeepLabV3+ (Chen et al., arXiv 1802.02611): a backbone, ASPP, and a decoder that brings back stride 4."""

from baselines.backbones.mobilenetv2 import mobilenetv2
from baselines.heads import aspp, classifier, decoder
from nasseg.graph import Architecture, Builder


def deeplabv3plus_mobilenetv2(
    num_classes: int = 19,
    *,
    output_stride: int = 16,
    separable: bool = True,
    image_pooling: bool = True,
    filters: int = 256,
) -> Architecture:
    """DeepLabV3+ on MobileNetV2; `separable` makes ASPP's and the decoder's 3×3 convolutions separable (§3.2)."""
    g = Builder("deeplabv3plus-mobilenetv2")
    image = g.input()
    features = mobilenetv2(g, image, output_stride)
    high = aspp(g, features.output, output_stride, channels=filters, separable=separable, image_pooling=image_pooling)
    x = decoder(g, high, features.low_level, channels=filters, separable=separable)
    return g.build(classifier(g, x, image, num_classes))
