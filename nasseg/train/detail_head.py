"""The detail head of STDC (arXiv 2104.13188, section 3.3) for any network, in training only."""

import math

import torch

from nasseg.cost.describe import walk
from nasseg.graph import Architecture
from nasseg.graph.architecture import Node
from nasseg.network import Network
from nasseg.ops import Conv, Input
from nasseg.train.device import seeded

BACKBONE = "backbone"
STRIDE = 8
"""Of the map that the head reads, as in STDC."""
CHANNELS = 64
PROBED_PIXELS = 256
"""Side of the square image whose shapes tell the strides."""


def with_detail_head(architecture: Architecture) -> Architecture:
    """Return the architecture with a detail head as a training output; one that has a head is returned as it is.

    The head, a 3×3 convolution to 64 channels and a 1×1 to one, (N, 1, H / 8, W / 8), reads the backbone's last map at
    stride 8, or at the stride nearest to it. Raises `ValueError` if the backbone is not part of the architecture.
    """
    if any(name.startswith("detail") for name in architecture.training_outputs):
        return architecture
    conv = Node(name="detail.conv", op=Conv(out_channels=CHANNELS), inputs=(_detailed_map(architecture),))
    score = Conv(out_channels=1, kernel=1, norm="none", activation="none")
    logits = Node(name="detail.logits", op=score, inputs=(conv.name,))
    return architecture.replace(
        nodes=(*architecture.nodes, conv, logits), training_outputs=(*architecture.training_outputs, logits.name)
    )


def add_detail_head(network: Network, seed: int) -> Network:
    """Return a network of the same weights with a detail head, whose own depend on `seed` alone.

    A network that has a head is returned as it is. Raises `ValueError` as `with_detail_head` does.
    """
    architecture = with_detail_head(network.architecture)
    if architecture is network.architecture:
        return network
    with seeded(torch.device("cpu"), seed, step=0):
        copy = Network(architecture)
    copy.load_state_dict(network.state_dict(), strict=False)
    return copy


def _detailed_map(architecture: Architecture) -> str:
    names = {
        PROBED_PIXELS / cost.shape[1]: node.name  # the last one of each stride
        for node, _, cost in walk(architecture, (PROBED_PIXELS, PROBED_PIXELS))
        if node.stage == BACKBONE and not isinstance(node.op, Input)
    }
    if not names:
        raise ValueError(f"{architecture.name} has no stage {BACKBONE!r} for a detail head: turn detail_head off")
    return names[min(names, key=lambda stride: (abs(math.log2(stride / STRIDE)), stride))]
