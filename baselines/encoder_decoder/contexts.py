"""Context modules on a backbone's deepest map: (N, C, H, W) → (N, width, H, W)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from baselines.dense_prediction_cell import dense_prediction_cell
from baselines.encoder_decoder.design import Context, Design
from baselines.heads import aspp, conv3x3
from nasseg.graph import Builder
from nasseg.ops import (
    Add,
    Concat,
    Conv,
    Gate,
    GlobalFilter,
    GlobalPool,
    Op,
    PyramidPool,
    SelfAttention,
    StripPool,
    conv1x1,
    image_pool,
)

PSP_GRIDS = (1, 2, 3, 6)
SPPM_GRIDS = (1, 2, 4)
HEADS = 4

ContextModule = Callable[[Builder, str, int, Design], str]
"""Adds the module of a design on the map named second, with so many channels; returns the module's output."""


def none(g: Builder, features: str, width: int, design: Design) -> str:
    """Return the map as it is."""
    return features


def image_pooling(g: Builder, features: str, width: int, design: Design) -> str:
    """Add the projected mean of the map to its projection (ParseNet, arXiv 1506.04579, §3)."""
    projected = g.add("projection", conv1x1(width), features)
    return g.add("sum", Add(), projected, g.add("image_pool", image_pool(width), features))


def pyramid_pooling(g: Builder, features: str, width: int, design: Design) -> str:
    """Add PSPNet's pyramid pooling (arXiv 1612.01105, §3.2): four grids, concatenated with the map; 3×3 convolution."""
    channels = max(8, width // len(PSP_GRIDS))
    pools = pools_by_grid(g, features, channels, PSP_GRIDS)
    return g.add("projection", conv3x3(width, separable=False), g.add("concat", Concat(), features, *pools))


def simple_pyramid_pooling(g: Builder, features: str, width: int, design: Design) -> str:
    """Add PP-LiteSeg's SPPM (arXiv 2204.02681, §3.4): three grids, added up; 3×3 convolution."""
    pools = pools_by_grid(g, features, width, SPPM_GRIDS)
    return g.add("projection", conv3x3(width, separable=False), g.add("sum", Add(), *pools))


def pools_by_grid(g: Builder, features: str, width: int, grids: Sequence[int]) -> list[str]:
    """Add a projected pool of `width` channels for each grid."""
    return [g.add(f"pool{grid}", PyramidPool(out_channels=width, grid=(grid, grid)), features) for grid in grids]


def separable_aspp(g: Builder, features: str, width: int, design: Design) -> str:
    """Add DeepLabV3+'s ASPP of separable convolutions (arXiv 1802.02611, §3.2)."""
    return aspp(g, features, design.output_stride, channels=width, separable=True)


def cell(g: Builder, features: str, width: int, design: Design) -> str:
    """Add the design's dense prediction cell (arXiv 1809.04184, §3.1)."""
    assert design.cell is not None
    return dense_prediction_cell(g, features, design.cell, output_stride=design.output_stride, filters=width)


def gate(g: Builder, features: str, width: int, design: Design) -> str:
    """Add LR-ASPP's branch at the deepest stride (arXiv 1905.02244, §6.4): 1×1 convolution, gated by the map's mean."""
    projected = g.add("projection", conv1x1(width), features)
    return g.add("gate", Gate(), projected, g.add("scores", _plain1x1(width), g.add("pool", GlobalPool(), features)))


def attention_refinement(g: Builder, features: str, width: int, design: Design) -> str:
    """Add the deep end of STDC's context path (arXiv 2104.13188, §3.2): ARM plus the projected mean of the map."""
    mean = g.add("mean.conv", conv1x1(width), g.add("mean.pool", GlobalPool(), features))
    return g.add("sum", Add(), refined_by_attention(g, features, width), mean)


def refined_by_attention(g: Builder, features: str, width: int) -> str:
    """Add BiSeNet's attention refinement (arXiv 1808.00897, §3.2): 3×3 convolution, gated by its own mean."""
    x = g.add("conv", conv3x3(width, separable=False), features)
    attention = Conv(out_channels=width, kernel=1, activation="none")
    return g.add("gate", Gate(), x, g.add("attention", attention, g.add("pool", GlobalPool(), x)))


def _of(make: Callable[[int], Op]) -> ContextModule:
    def module(g: Builder, features: str, width: int, design: Design) -> str:
        return g.add("module", make(width), features)

    return module


def _plain1x1(width: int) -> Conv:
    return Conv(out_channels=width, kernel=1, norm="none", activation="none")


CONTEXTS: dict[Context, ContextModule] = {
    "none": none,
    "image_pooling": image_pooling,
    "pyramid_pooling": pyramid_pooling,
    "simple_pyramid_pooling": simple_pyramid_pooling,
    "aspp": separable_aspp,
    "dense_prediction_cell": cell,
    "strip_pooling": _of(lambda width: StripPool(out_channels=width)),
    "gate": gate,
    "attention_refinement": attention_refinement,
    "self_attention": _of(lambda width: SelfAttention(out_channels=width, heads=HEADS)),
    "global_filter": _of(lambda width: GlobalFilter(out_channels=width)),
}
"""By name."""
