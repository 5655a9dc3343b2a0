"""STDC networks (Fan et al., Rethinking BiSeNet, arXiv 2104.13188): fast, with a detail head in training only."""

from typing import NamedTuple

from baselines.encoder_decoder.contexts import refined_by_attention
from baselines.encoder_decoder.decoder import feature_fusion
from baselines.heads import conv3x3
from nasseg.graph import Architecture, Builder
from nasseg.ops import Add, Conv, Dropout, GlobalPool, Multiply, Resize, StdcModule, conv1x1

STAGES = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}
"""Modules of stages 3 to 5 (table 2)."""


class Maps(NamedTuple):
    """The names of the backbone's maps: 256, 512 and 1024 channels."""

    stride8: str
    stride16: str
    stride32: str


def stdc1(num_classes: int = 19) -> Architecture:
    """STDC1-Seg: the small backbone with context path, feature fusion, two auxiliary heads and the detail head."""
    return _segmentation("stdc1", num_classes)


def stdc2(num_classes: int = 19) -> Architecture:
    """STDC2-Seg: as `stdc1`, on the larger backbone."""
    return _segmentation("stdc2", num_classes)


def stdc1_classifier(num_classes: int = 1000) -> Architecture:
    """The STDC1 backbone with its ImageNet head: (N, num_classes, 1, 1) scores of the whole image."""
    return _classification("stdc1", num_classes)


def stdc2_classifier(num_classes: int = 1000) -> Architecture:
    """The STDC2 backbone with its ImageNet head: (N, num_classes, 1, 1) scores of the whole image."""
    return _classification("stdc2", num_classes)


def _backbone(g: Builder, image: str, repeats: tuple[int, ...]) -> Maps:
    with g.scope("backbone"):
        x = g.add("stage1", Conv(out_channels=32, stride=2), image)
        x = g.add("stage2", Conv(out_channels=64, stride=2), x)
        maps = []
        for stage, (repeat, channels) in enumerate(zip(repeats, (256, 512, 1024), strict=True), start=3):
            for index in range(repeat):
                op = StdcModule(out_channels=channels, stride=1 if index else 2)
                x = g.add(f"stage{stage}.{index}", op, x)
            maps.append(x)
    return Maps(*maps)


def _segmentation(name: str, classes: int) -> Architecture:
    """Build the two paths of §3.2, figure 4."""
    g = Builder(name)
    image = g.input()
    maps = _backbone(g, image, STAGES[name])
    with g.scope("context"):
        mean = g.add("mean.pool", GlobalPool(), maps.stride32)
        mean = g.add("mean.conv", conv1x1(128), mean)
        up32 = _refine(g, "arm32", maps.stride32, mean, maps.stride16)
        up16 = _refine(g, "arm16", maps.stride16, up32, maps.stride8)
    with g.scope("fusion"):
        fused = feature_fusion(g, up16, maps.stride8, 256)
    with g.scope("head"):
        logits = g.add("upsample", Resize(), _scores(g, fused, 256, classes), image)
    training = []
    heads = {"auxiliary.stride8": (up16, classes), "auxiliary.stride16": (up32, classes), "detail": (maps.stride8, 1)}
    for scope, (features, channels) in heads.items():
        with g.scope(scope):
            training.append(_scores(g, features, 64, channels))
    return g.build(logits, training_outputs=tuple(training))


def _refine(g: Builder, name: str, features: str, deeper: str, size_of: str) -> str:
    """Add attention refinement of `features`, plus the `deeper` context, upsampled to the size of `size_of`."""
    with g.scope(name):
        x = g.add("sum", Add(), refined_by_attention(g, features, 128), deeper)
        x = g.add("upsample", Resize(mode="nearest"), x, size_of)
        return g.add("smooth", conv3x3(128, separable=False), x)


def _scores(g: Builder, features: str, width: int, channels: int) -> str:
    """Add a 3×3 convolution, then 1×1 without bias, as released."""
    x = g.add("conv", conv3x3(width, separable=False), features)
    return g.add("logits", Conv(out_channels=channels, kernel=1, norm="none", activation="none"), x)


def _classification(name: str, classes: int) -> Architecture:
    """Build table 2's classifier as released: the last convolution's output is squared, linear layers have no bias."""
    g = Builder(f"{name}-classifier")
    x = _backbone(g, g.input(), STAGES[name]).stride32
    with g.scope("head"):
        x = g.add("conv", conv1x1(1024), x)
        x = g.add("square", Multiply(), x, x)
        x = g.add("pool", GlobalPool(), x)
        x = g.add("fc1", Conv(out_channels=1024, kernel=1, norm="none"), x)
        x = g.add("dropout", Dropout(probability=0.2), x)
        return g.build(g.add("fc2", Conv(out_channels=classes, kernel=1, norm="none", activation="none"), x))
