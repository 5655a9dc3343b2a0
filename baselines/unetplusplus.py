"""U-Net++ (Zhou et al., arXiv 1807.10165): U-Net with nested skip connections and deep supervision."""

from typing import Literal

from baselines.heads import classifier
from nasseg.graph import Architecture, Builder
from nasseg.ops import Concat, Conv, MaxPool, TransposedConv, logits1x1

WIDTHS = (32, 64, 128, 256, 512)


def unetplusplus(
    num_classes: int = 19, *, in_channels: int = 3, norm: Literal["batch", "none"] = "batch", bias: bool = False
) -> Architecture:
    """U-Net++ L4. The paper's network is `norm=none,bias=true`.

    Node x{i}_{j} (§3.1, equation 1) at depth i takes the nodes before it at its depth and, upsampled, x{i+1}_{j-1}.
    In training, x0_1 to x0_3 give logits besides x0_4 (§3.2).
    """
    g = Builder("unetplusplus")
    image = g.input(in_channels)
    nodes: dict[tuple[int, int], str] = {}

    def double_conv(x: str, depth: int) -> str:
        for name in ("conv1", "conv2"):
            x = g.add(name, Conv(out_channels=WIDTHS[depth], norm=norm, bias=bias), x)
        return x

    x = image
    for depth in range(len(WIDTHS)):
        with g.scope(f"backbone.x{depth}_0"):
            x = g.add("pool", MaxPool(kernel=2, stride=2), x) if depth else image
            x = nodes[depth, 0] = double_conv(x, depth)
    for column in range(1, len(WIDTHS)):
        for depth in range(len(WIDTHS) - column):
            same = [nodes[depth, earlier] for earlier in range(column)]
            with g.scope(f"decoder.x{depth}_{column}"):
                up = TransposedConv(out_channels=WIDTHS[depth], bias=bias)
                x = g.add("up", up, nodes[depth + 1, column - 1], same[0])
                nodes[depth, column] = double_conv(g.add("concat", Concat(), *same, x), depth)
    *shallower, last = [nodes[0, column] for column in range(1, len(WIDTHS))]
    supervised = [
        g.add(f"auxiliary.x0_{column}.logits", logits1x1(num_classes), x) for column, x in enumerate(shallower, 1)
    ]
    return g.build(classifier(g, last, image, num_classes), training_outputs=tuple(supervised))
