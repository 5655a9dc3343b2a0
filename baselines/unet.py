"""U-Net (Ronneberger et al., arXiv 1505.04597): a contracting and an expanding path joined by skip connections."""

from typing import Literal

from baselines.heads import classifier
from nasseg.graph import Architecture, Builder
from nasseg.ops import Concat, Conv, MaxPool, Resize, TransposedConv

WIDTHS = (64, 128, 256, 512, 1024)


def unet(
    num_classes: int = 19,
    *,
    in_channels: int = 3,
    norm: Literal["batch", "none"] = "batch",
    bias: bool = False,
    decoder: Literal["transposed", "bilinear"] = "transposed",
) -> Architecture:
    """U-Net with padded convolutions, so that logits have the image's size.

    The paper's network is `norm=none,bias=true`: biases, no norm. `decoder="bilinear"` replaces each 2×2 transposed
    convolution by bilinear resizing and a 1×1 convolution.
    """
    g = Builder("unet")
    image = g.input(in_channels)

    def double_conv(x: str, width: int) -> str:
        for name in ("conv1", "conv2"):
            x = g.add(name, Conv(out_channels=width, norm=norm, bias=bias), x)
        return x

    x, skips = image, []
    for level, width in enumerate(WIDTHS):
        with g.scope(f"backbone.level{level}"):
            if level:
                skips.append(x)
                x = g.add("pool", MaxPool(kernel=2, stride=2), x)
            x = double_conv(x, width)
    for level, (width, skip) in reversed(list(enumerate(zip(WIDTHS, skips, strict=False)))):
        with g.scope(f"decoder.level{level}"):
            if decoder == "transposed":
                x = g.add("up", TransposedConv(out_channels=width, bias=bias), x, skip)
            else:
                x = g.add("resize", Resize(), x, skip)
                x = g.add("up", Conv(out_channels=width, kernel=1, norm="none", activation="none", bias=bias), x)
            x = double_conv(g.add("concat", Concat(), skip, x), width)
    return g.build(classifier(g, x, image, num_classes))
