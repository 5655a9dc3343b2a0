"""A decoder: from the deepest map up through the backbone's maps at smaller strides."""

from __future__ import annotations

from collections.abc import Callable

from baselines.backbones.shape import kept
from baselines.encoder_decoder.contexts import refined_by_attention
from baselines.encoder_decoder.design import Convolution, Design, Fusion, Level
from baselines.heads import conv3x3
from nasseg.graph import Builder
from nasseg.ops import Add, AttentionFusion, Concat, Conv, Gate, GlobalPool, Op, Resize, conv1x1

CONVOLUTIONS: dict[Convolution, Callable[[int], Op]] = {
    "conv1x1": conv1x1,
    "conv3x3": lambda width: conv3x3(width, separable=False),
    "separable3x3": lambda width: conv3x3(width, separable=True),
}
JOINS: dict[Fusion, tuple[str, Op]] = {
    "add": ("sum", Add()),
    "concat": ("concat", Concat()),
    "spatial_attention": ("fusion", AttentionFusion(attention="spatial")),
    "channel_attention": ("fusion", AttentionFusion(attention="channel")),
}
"""Fusions by one operator on the deeper map, upsampled, and the lateral one, with the node's name."""
SQUEEZE = 4
"""Channels to each of those in the middle of feature fusion's attention."""


def decode(g: Builder, x: str, taps: dict[int, str], design: Design) -> str:
    """Add the decoder of a design on the deepest map `x` and the backbone's maps by stride; returns its output."""
    outputs = [x]
    for stride, level in design.levels:
        with g.scope(f"stride{stride}"):
            x = _level(g, x, taps[stride], level, design)
        outputs.append(x)
    return _sum(g, outputs) if design.merge == "sum" and design.levels else x


def _level(g: Builder, x: str, tap: str, level: Level, design: Design) -> str:
    width = kept(level.width, design.width)
    if level.fusion in ("concat", "feature_fusion"):
        lateral = _lateral(g, tap, level, kept(round(level.width * level.lateral_share), design.width))
    else:
        lateral = _lateral(g, tap, level, width)
        if g.channels(x) != width:
            x = g.add("project", conv1x1(width), x)
    up = g.add("upsample", Resize(), x, lateral)
    if level.fusion == "feature_fusion":
        return feature_fusion(g, up, lateral, width)
    x = g.add(*JOINS[level.fusion], up, lateral)
    if design.refine == "none":
        return x
    for number in range(1, design.repeats + 1):
        x = g.add(f"conv{number}", CONVOLUTIONS[design.refine](width), x)
    return x


def _lateral(g: Builder, tap: str, level: Level, width: int) -> str:
    if level.lateral == "none":
        return tap
    with g.scope("lateral"):
        if level.lateral == "attention_refinement":
            return refined_by_attention(g, tap, width)
        return g.add("conv", CONVOLUTIONS[level.lateral](width), tap)


def feature_fusion(g: Builder, up: str, lateral: str, width: int) -> str:
    """Add BiSeNet's feature fusion (arXiv 1808.00897, §3.2): concatenated, projected, and x + x · attention."""
    x = g.add("projection", conv1x1(width), g.add("concat", Concat(), lateral, up))
    attention = g.add("pool", GlobalPool(), x)
    attention = g.add("squeeze", Conv(out_channels=max(1, width // SQUEEZE), kernel=1, norm="none"), attention)
    attention = g.add("excite", Conv(out_channels=width, kernel=1, norm="none", activation="none"), attention)
    return g.add("sum", Add(), x, g.add("gate", Gate(), x, attention))


def _sum(g: Builder, outputs: list[str]) -> str:
    """Add up the outputs of all levels at the size and width of the last, as semantic FPN does (arXiv 1901.02446)."""
    *deeper, last = outputs
    width = g.channels(last)
    with g.scope("merge"):
        parts = []
        for number, x in enumerate(deeper):
            projected = g.add(f"project{number}", conv1x1(width), x)
            parts.append(g.add(f"upsample{number}", Resize(), projected, last))
        return g.add("sum", Add(), last, *parts)
