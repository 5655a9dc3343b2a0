"""VGG-16 (Simonyan & Zisserman, arXiv 1409.1556, table 1, D), its first two fully connected layers as convolutions."""

from typing import NamedTuple

from nasseg.graph import Builder
from nasseg.ops import Activation, Conv, Dropout, MaxPool

STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""Convolutions and channels between the pools."""


class Maps(NamedTuple):
    """The names of the maps that FCN reads: 256 channels at stride 8, 512 at stride 16, `fc_channels` at stride 32."""

    pool3: str
    pool4: str
    fc7: str


def vgg16(g: Builder, image: str, *, fc_channels: int = 4096) -> Maps:
    """Add `backbone.features.0` to `.30` and the fully convolutional `backbone.classifier.0` (7×7) to `.5` (dropout).

    The 7×7 convolution is padded, so that maps of any size work; FCN's first release pads the image by 100 instead.
    """
    pools = []
    x = image
    with g.scope("backbone.features"):
        index = 0
        for repeats, channels in STAGES:
            for _ in range(repeats):
                x = g.add(str(index), _conv(channels, 3), x)
                x = g.add(str(index + 1), Activation(), x)
                index += 2
            x = g.add(str(index), MaxPool(kernel=2, stride=2), x)
            pools.append(x)
            index += 1
    with g.scope("backbone.classifier"):
        for index, kernel in ((0, 7), (3, 1)):
            x = g.add(str(index), _conv(fc_channels, kernel), x)
            x = g.add(str(index + 1), Activation(), x)
            x = g.add(str(index + 2), Dropout(probability=0.5), x)
    return Maps(pool3=pools[2], pool4=pools[3], fc7=x)


def _conv(channels: int, kernel: int) -> Conv:
    return Conv(out_channels=channels, kernel=kernel, bias=True, norm="none", activation="none")
