"""MobileNetV2 (Sandler et al., arXiv 1801.04381, table 2), without its last 1×1 convolution and classifier."""

from baselines.backbones.features import Features, rates_for_output_stride, refuse_multi_grid
from nasseg.graph import Builder
from nasseg.ops import Conv, InvertedResidual

# (expansion, channels, repeats, stride), table 2
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenetv2(g: Builder, image: str, output_stride: int, *, multi_grid: bool = False) -> Features:
    """Add the layers `backbone.features.0` to `.17`; 320 output channels, 24 low-level channels at stride 4."""
    refuse_multi_grid(multi_grid, "mobilenetv2")
    blocks = [
        (expansion, channels, stride if repeat == 0 else 1)
        for expansion, channels, repeats, stride in STAGES
        for repeat in range(repeats)
    ]
    strides = rates_for_output_stride((2, *(stride for *_, stride in blocks)), output_stride)
    with g.scope("backbone.features"):
        x = g.add("0", Conv(out_channels=32, stride=2, activation="relu6"), image)
        low_level = x
        for index, (expansion, channels, _) in enumerate(blocks, start=1):
            stride, rate = strides[index]
            op = InvertedResidual(out_channels=channels, expansion=expansion, stride=stride, rate=(rate, rate))
            x = g.add(str(index), op, x)
            low_level = x if channels == 24 else low_level
    return Features(output=x, low_level=low_level)
