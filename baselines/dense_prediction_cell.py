"""A dense prediction cell (Chen et al., arXiv 1809.04184, §3.1): branches on a backbone's map, concatenated."""

from __future__ import annotations

from typing import Literal

from nasseg.graph import Builder
from nasseg.ops import Concat, Dropout, Op, PyramidPool, SeparableConv, conv1x1
from nasseg.space import Choice

FEATURES = -1
"""The input of a branch that reads F, the backbone's output."""


class Branch(Choice):
    """One branch: an operator on F (`input` −1) or on an earlier branch's output (its index).

    `rate` (h, w) belongs to `atrous` (3×3, separable, at output stride 16), `grid` (h, w) to `pool` (average spatial
    pyramid pooling).
    """

    input: int
    op: Literal["conv1x1", "atrous", "pool"]
    rate: tuple[int, int] | None = None
    grid: tuple[int, int] | None = None

    @property
    def operator(self) -> tuple[str, int, int]:
        """The operator without the input, as a sortable value."""
        first, second = self.rate or self.grid or (0, 0)
        return self.op, first, second

    def on(self, source: int) -> Branch:
        """Return the same operator on another input."""
        return self.model_copy(update={"input": source})


class Cell(Choice):
    """A dense prediction cell: its branches, each after the branch that it reads."""

    branches: tuple[Branch, ...]


CONV1X1 = Cell(branches=(Branch(input=FEATURES, op="conv1x1"),))
"""The humblest cell: a single 1×1 convolution."""

ASPP = Cell(
    branches=(
        Branch(input=FEATURES, op="conv1x1"),
        *(Branch(input=FEATURES, op="atrous", rate=(rate, rate)) for rate in (6, 12, 18)),
        Branch(input=FEATURES, op="pool", grid=(1, 1)),
    )
)
"""DeepLab's atrous spatial pyramid pooling is a point of the space."""

PUBLISHED = Cell(
    branches=tuple(
        Branch(input=source, op="atrous", rate=rate)
        for source, rate in ((FEATURES, (1, 6)), (0, (18, 15)), (1, (6, 3)), (0, (1, 1)), (0, (6, 21)))
    )
)
"""The best cell of the paper (figure 6)."""


def dense_prediction_cell(g: Builder, features: str, cell: Cell, *, output_stride: int, filters: int) -> str:
    """Add a cell in the stage `cell`: (N, C, H, W) → (N, filters, H, W).

    Rates are for output stride 16 and scale with 16 / output_stride.
    """
    with g.scope("cell"):
        outputs: list[str] = []
        for index, branch in enumerate(cell.branches):
            source = features if branch.input == FEATURES else outputs[branch.input]
            outputs.append(g.add(f"branch{index}", _operator(branch, output_stride, filters), source))
        joined = g.add("concat", Concat(), *outputs)
        dropped = g.add("dropout", Dropout(probability=0.1), joined)
        return g.add("projection", conv1x1(filters), dropped)


def _operator(branch: Branch, output_stride: int, filters: int) -> Op:
    if branch.rate is not None:
        h, w = (max(1, rate * 16 // output_stride) for rate in branch.rate)
        return SeparableConv(out_channels=filters, rate=(h, w))
    if branch.grid is not None:
        return PyramidPool(out_channels=filters, grid=branch.grid)
    return conv1x1(filters)
