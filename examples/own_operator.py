"""An operator of one's own, squeeze and excitation, and what it costs.

Run from the repository's root:

    python -m examples.own_operator

A file names an operator by its kind and imports nothing: an installed package defines the kind. So that networks with
yours can be loaded, give it as an entry point in your package's `pyproject.toml`:

    [project.entry-points."nasseg.ops"]
    squeeze_excite = "examples.own_operator:SqueezeExcite"
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from nasseg.graph import Builder
from nasseg.ops import Op


class SqueezeExcite(Op):
    """A scale per channel, computed from the means of all (arXiv 1709.01507): (N, C, H, W) → the same shape."""

    op: Literal["squeeze_excite"] = "squeeze_excite"
    squeezed: int = 4

    def out_channels_of(self, in_channels: Sequence[int]) -> int:
        """Keep the number of channels."""
        return in_channels[0]

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build a module with two 1×1 convolutions."""
        return Scale(in_channels[0], self.squeezed)


class Scale(nn.Module):
    """A product of the input and a sigmoid of its mean, computed through `squeezed` channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scale (N, C, H, W) to the same shape."""
        mean = x.mean((2, 3), keepdim=True)
        scale: Tensor = self.excite(self.squeeze(mean).relu())
        return x * scale.sigmoid()


if __name__ == "__main__":
    g = Builder("own")
    cost = g.build(g.add("scale", SqueezeExcite(), g.input(64))).describe((128, 256))
    print(f"{cost.params:,} parameters, {cost.madds:,} MAdds")
