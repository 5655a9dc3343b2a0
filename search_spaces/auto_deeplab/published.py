"""The published networks Auto-DeepLab-S, -M and -L (arXiv 1901.02985, figure 3 and table 2)."""

from __future__ import annotations

from collections.abc import Callable

from nasseg.graph import Architecture
from search_spaces.auto_deeplab.choice import Backbone, Block, Edge
from search_spaces.auto_deeplab.dimensions import Dimensions
from search_spaces.auto_deeplab.network import segmenter

_B0, _B1, _B2, _B3 = range(2, 6)
"""The states that are outputs of blocks."""

PUBLISHED = Backbone(
    blocks=(
        Block(first=Edge(state=1, op="atrous5"), second=Edge(state=0, op="sep3")),
        Block(first=Edge(state=1, op="sep3"), second=Edge(state=0, op="atrous3")),
        Block(first=Edge(state=_B1, op="sep3"), second=Edge(state=1, op="sep3")),
        Block(first=Edge(state=_B2, op="sep5"), second=Edge(state=_B0, op="sep5")),
        Block(first=Edge(state=_B1, op="sep5"), second=Edge(state=_B3, op="atrous5")),
    ),
    levels=(0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1),
)
"""The cell and the path that the paper's search found on Cityscapes."""


def _published(size: str, default_filters: int) -> Callable[..., Architecture]:
    def auto_deeplab(num_classes: int = 19, *, filters: int = default_filters, head_filters: int = 256) -> Architecture:
        """Build Auto-DeepLab with `filters` F: a layer at stride s has 5 · F · s / 4 filters."""
        dimensions = Dimensions(filters=filters, head_filters=head_filters)
        return segmenter(f"auto_deeplab-{size}", PUBLISHED, num_classes, dimensions)

    return auto_deeplab


auto_deeplab_s = _published("s", 20)
auto_deeplab_m = _published("m", 32)
auto_deeplab_l = _published("l", 48)
