"""Heads on a backbone's features: ASPP, the DeepLabV3+ decoder, the classifier."""

from nasseg.graph import Builder
from nasseg.ops import Concat, Conv, Dropout, Op, Resize, SeparableConv, conv1x1, image_pool, logits1x1

ASPP_RATES = (6, 12, 18)
"""Atrous rates at output stride 16; they double at 8 (arXiv 1706.05587, §3.3)."""


def conv3x3(channels: int, *, rate: int = 1, separable: bool) -> Op:
    """Make a dense or separable 3×3 convolution with batch norm and ReLU."""
    if separable:
        return SeparableConv(out_channels=channels, rate=(rate, rate))
    return Conv(out_channels=channels, rate=(rate, rate))


def aspp(
    g: Builder, features: str, output_stride: int, *, channels: int = 256, separable: bool, image_pooling: bool = True
) -> str:
    """Add atrous spatial pyramid pooling: 1×1, three atrous 3×3, image pooling; concat, project, dropout.

    DeepLabV3 (arXiv 1706.05587, §3.3). (N, C, H, W) → (N, channels, H, W), in the stage `cell`.
    """
    rates = [rate * 16 // output_stride for rate in ASPP_RATES]
    with g.scope("cell"):
        branches = [g.add("conv1x1", conv1x1(channels), features)]
        branches += [
            g.add(f"atrous{rate}", conv3x3(channels, rate=rate, separable=separable), features) for rate in rates
        ]
        if image_pooling:
            branches.append(g.add("image_pool", image_pool(channels), features))
        joined = g.add("concat", Concat(), *branches)
        projected = g.add("projection", conv1x1(channels), joined)
        return g.add("dropout", Dropout(probability=0.1), projected)


def decoder(
    g: Builder, high: str, low_level: str, *, low_level_channels: int = 48, channels: int = 256, separable: bool
) -> str:
    """Add DeepLabV3+'s decoder (arXiv 1802.02611, §3.1): upsample, concat with projected low-level features, two 3×3.

    Returns a (N, channels, H / 4, W / 4) map, in the stage `decoder`.
    """
    with g.scope("decoder"):
        low = g.add("low_level", conv1x1(low_level_channels), low_level)
        up = g.add("upsample", Resize(), high, low)
        joined = g.add("concat", Concat(), up, low)
        first = g.add("conv1", conv3x3(channels, separable=separable), joined)
        return g.add("conv2", conv3x3(channels, separable=separable), first)


def classifier(g: Builder, features: str, image: str, classes: int) -> str:
    """Add a 1×1 convolution to (N, classes, h, w) logits and a bilinear resize to the image, in the stage `head`."""
    with g.scope("head"):
        logits = g.add("logits", logits1x1(classes), features)
        return g.add("upsample", Resize(), logits, image)


def auxiliary_head(g: Builder, features: str, classes: int) -> str:
    """Add a second classifier for training only, on features of a middle stage: (N, classes, h, w) logits, not resized.

    3×3 convolution to a quarter of the channels, dropout, 1×1 (PSPNet, arXiv 1612.01105, §3.3), in the stage
    `auxiliary`.
    """
    with g.scope("auxiliary"):
        x = g.add("conv", conv3x3(g.channels(features) // 4, separable=False), features)
        x = g.add("dropout", Dropout(probability=0.1), x)
        return g.add("logits", logits1x1(classes), x)
