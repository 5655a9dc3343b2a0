"""EfficientNet-Lite 0 to 2, without their last 1×1 convolution and classifier.

EfficientNet (Tan and Le, arXiv 1905.11946, table 1) without squeeze-and-excitation and with ReLU6, as released by its
authors for phones (github.com/tensorflow/tpu, models/official/efficientnet/lite). Padding and batch norm's epsilon are
TensorFlow's, so that the released weights compute what they did there.
"""

from collections.abc import Callable
from math import ceil

from baselines.backbones.features import Features, refuse_multi_grid
from baselines.backbones.inverted import Layers, inverted_residuals, published_stages
from baselines.backbones.shape import Shape, kept
from nasseg.graph import Builder
from nasseg.ops import Conv

# (expansion, channels, blocks, stride, kernel) of EfficientNet-B0, table 1
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM = Conv(out_channels=32, stride=2, norm="batch_1e-3", activation="relu6", padding="tensorflow")


def _layers(name: str, width: float, depth: float) -> Layers:
    """Compound scaling; the stem's width and the depth of the first and the last stage stay (as released)."""
    last = len(STAGES) - 1
    rows = [
        (expansion, kept(channels, width), blocks if place in (0, last) else ceil(blocks * depth), stride, kernel)
        for place, (expansion, channels, blocks, stride, kernel) in enumerate(STAGES)
    ]
    return Layers(name, "backbone", "stem", "blocks.{}", published_stages(rows, first=0), STEM)


LAYERS = {
    "efficientnet_lite0": _layers("efficientnet_lite0", 1.0, 1.0),
    "efficientnet_lite1": _layers("efficientnet_lite1", 1.0, 1.1),
    "efficientnet_lite2": _layers("efficientnet_lite2", 1.1, 1.2),
}


def _of(name: str) -> Callable[..., Features]:
    def efficientnet_lite(
        g: Builder, image: str, output_stride: int, *, multi_grid: bool = False, shape: Shape | None = None
    ) -> Features:
        """Add the layers `backbone.stem` and `backbone.blocks.0` to the last; 24 low-level channels at stride 4."""
        refuse_multi_grid(multi_grid, name)
        return inverted_residuals(g, image, LAYERS[name], output_stride, shape)

    return efficientnet_lite


efficientnet_lite0 = _of("efficientnet_lite0")
efficientnet_lite1 = _of("efficientnet_lite1")
efficientnet_lite2 = _of("efficientnet_lite2")
