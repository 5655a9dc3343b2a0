"""An operator of one's own, squeeze and excitation, and what it costs.

Run from the repository's root:

    python -m examples.own_operator

A file names an operator by its kind and imports nothing: an installed package says what the kind is. So that networks
with yours can be loaded, give it as an entry point in your package's `pyproject.toml`:

    [project.entry-points."nasseg.ops"]
    squeeze_excite = "examples.own_operator:SqueezeExcite"
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from nasseg.graph import Builder
from nasseg.ops import Op


class SqueezeExcite(Op):
    """Scales each channel by what all channels are on average (arXiv 1709.01507): (N, C, H, W) → the same shape."""

    op: Literal["squeeze_excite"] = "squeeze_excite"
    squeezed: int = 4

    def out_channels_of(self, in_channels: Sequence[int]) -> int:
        """As many as come in."""
        return in_channels[0]

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """A module with two 1×1 convolutions."""
        return Scale(in_channels[0], self.squeezed)


class Scale(nn.Module):
    """Multiplies its input by a sigmoid of its mean, through `squeezed` channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape, (N, C, H, W)."""
        mean = x.mean((2, 3), keepdim=True)
        scale: Tensor = self.excite(self.squeeze(mean).relu())
        return x * scale.sigmoid()


if __name__ == "__main__":
    g = Builder("own")
    cost = g.build(g.add("scale", SqueezeExcite(), g.input(64))).describe((128, 256))
    print(f"{cost.params:,} parameters, {cost.madds:,} MAdds")
