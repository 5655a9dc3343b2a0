"""MobileNetV2 (Sandler et al., arXiv 1801.04381, table 2), without its last 1×1 convolution and classifier."""

from baselines.backbones.features import Features, refuse_multi_grid
from baselines.backbones.inverted import Layers, inverted_residuals, published_stages
from baselines.backbones.shape import Shape
from nasseg.graph import Builder

# (expansion, channels, blocks, stride, kernel), table 2
STAGES = published_stages(
    (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 32, 3, 2, 3),
        (6, 64, 4, 2, 3),
        (6, 96, 3, 1, 3),
        (6, 160, 3, 2, 3),
        (6, 320, 1, 1, 3),
    ),
    first=1,
)
LAYERS = Layers("mobilenetv2", scope="backbone.features", stem_name="0", block_name="{}", stages=STAGES)


def mobilenetv2(
    g: Builder, image: str, output_stride: int, *, multi_grid: bool = False, shape: Shape | None = None
) -> Features:
    """Add the layers `backbone.features.0` to `.17`; 320 output channels, 24 low-level channels at stride 4."""
    refuse_multi_grid(multi_grid, "mobilenetv2")
    return inverted_residuals(g, image, LAYERS, output_stride, shape)
