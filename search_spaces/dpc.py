"""The dense prediction cell space (Chen et al., arXiv 1809.04184, §3.1).

A cell has B branches (X_i, OP_i, Y_i): X_i is the backbone's output F or an earlier branch's output, OP_i one of 81
operators. The branches' outputs are concatenated and projected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from baselines.backbones import BACKBONES
from baselines.heads import classifier, decoder
from nasseg.graph import Architecture, Builder
from nasseg.ops import Concat, Dropout, Op, PyramidPool, SeparableConv, conv1x1
from nasseg.space import Choice, Decide, Space

RATES = (1, 3, 6, 9, 12, 15, 18, 21)
GRIDS = (1, 2, 4, 8)
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


class DPC(Space[Cell]):
    """Dense prediction cells on a backbone: `dpc:branches=3,filters=64,decoder=true`.

    `decoder` is DeepLabV3+'s; by default, as in the paper, MobileNetV2 has none and other backbones have one.
    """

    branches: Annotated[int, Field(ge=1, le=16)] = 5
    backbone: Literal["mobilenetv2", "resnet18", "resnet50", "resnet101", "xception65", "xception71"] = "mobilenetv2"
    output_stride: Literal[8, 16, 32] = 16
    filters: Annotated[int, Field(ge=1)] = 256
    decoder: bool | None = None

    drawn_place: ClassVar = "cell"
    shared_stage: ClassVar = "backbone"

    def decisions(self, decide: Decide) -> None:
        """Take the input and operator of each branch, then both parts of its rate or grid."""
        for i in range(self.branches):
            decide.ordered(f"branches.{i}.input", range(FEATURES, i))
            ways = (1, len(RATES) ** 2, len(GRIDS) ** 2)
            op = decide.category(f"branches.{i}.op", ("conv1x1", "atrous", "pool"), ways=ways)
            if op != "conv1x1":
                field, options = ("rate", RATES) if op == "atrous" else ("grid", GRIDS)
                for axis in range(2):
                    decide.ordered(f"branches.{i}.{field}.{axis}", options)

    def references(self) -> dict[str, Cell]:
        """Return ASPP and the published cell if B = 5, else the point with ASPP's first operators."""
        if self.branches == len(PUBLISHED.branches):
            return {"aspp": ASPP, "dpc": PUBLISHED}
        repeated = tuple(ASPP.branches[index % len(ASPP.branches)] for index in range(self.branches))
        return {"aspp": self.canonical(Cell(branches=repeated))}

    def canonical(self, choice: Cell) -> Cell:
        """Order branches as in the rooted tree that they form, with children sorted by what their subtrees compute.

        The order of concatenation does not distinguish cells: the projection's weights absorb it.
        """
        children: dict[int, list[int]] = {}
        for index, branch in enumerate(choice.branches):
            children.setdefault(branch.input, []).append(index)

        def code(index: int) -> tuple[object, ...]:
            return (choice.branches[index].operator, *sorted(map(code, children.get(index, []))))

        ordered: list[Branch] = []

        def visit(index: int, source: int) -> None:
            if index != FEATURES:
                ordered.append(choice.branches[index].on(source))
                source = len(ordered) - 1
            for child in sorted(children.get(index, []), key=code):
                visit(child, source)

        visit(FEATURES, FEATURES)
        return Cell(branches=tuple(ordered))

    def parse(self, data: object) -> Cell:
        """Read a cell from a file's `choice`, or from the published file format (a list of branches)."""
        return super().parse(from_published(data) if isinstance(data, list) else data)

    def architecture(self, choice: Cell, classes: int) -> Architecture:
        """Build backbone, cell, optional decoder and classifier."""
        g = Builder("dpc")
        image = g.input()
        features = BACKBONES[self.backbone](g, image, self.output_stride)
        x = self._cell(g, features.output, choice)
        if self.decoder or (self.decoder is None and self.backbone != "mobilenetv2"):
            x = decoder(g, x, features.low_level, channels=self.filters, separable=True)
        return g.build(classifier(g, x, image, classes))

    def _cell(self, g: Builder, features: str, choice: Cell) -> str:
        with g.scope("cell"):
            outputs: list[str] = []
            for index, branch in enumerate(choice.branches):
                source = features if branch.input == FEATURES else outputs[branch.input]
                outputs.append(g.add(f"branch{index}", self._operator(branch), source))
            joined = g.add("concat", Concat(), *outputs)
            dropped = g.add("dropout", Dropout(probability=0.1), joined)
            return g.add("projection", conv1x1(self.filters), dropped)

    def _operator(self, branch: Branch) -> Op:
        """Make the branch's operator; rates are for output stride 16 and scale with 16 / output_stride."""
        if branch.rate is not None:
            h, w = (max(1, rate * 16 // self.output_stride) for rate in branch.rate)
            return SeparableConv(out_channels=self.filters, rate=(h, w))
        if branch.grid is not None:
            return PyramidPool(out_channels=self.filters, grid=branch.grid)
        return conv1x1(self.filters)


def from_published(branches: Sequence[Mapping[str, JsonValue]]) -> dict[str, JsonValue]:
    """Read a cell in the published file format: a list of branches, each with `input` and `op`.

    `op` is `conv` with `kernel` 1 or 3 and `rate`, or `pyramid_pooling` with `grid_size`.
    """
    cell: list[JsonValue] = []
    for index, branch in enumerate(branches):
        match branch:
            case {"op": "pyramid_pooling", "grid_size": grid, "input": source}:
                cell.append({"input": source, "op": "pool", "grid": grid})
            case {"op": "conv", "kernel": 1, "input": source}:
                cell.append({"input": source, "op": "conv1x1"})
            case {"op": "conv", "kernel": 3, "rate": rate, "input": source}:
                cell.append({"input": source, "op": "atrous", "rate": rate})
            case _:
                raise ValueError(
                    f"branch {index} is {branch}, but must have an input and be a conv (kernel 1, or 3 with its rate) "
                    "or a pyramid_pooling (with its grid_size)"
                )
    return {"branches": cell}


def to_published(cell: Cell) -> list[dict[str, object]]:
    """Write the cell in the published file format."""
    result: list[dict[str, object]] = []
    for branch in cell.branches:
        if branch.grid is not None:
            result.append({"op": "pyramid_pooling", "grid_size": list(branch.grid), "kernel": 1, "input": branch.input})
        else:
            kernel, rate = (3, list(branch.rate)) if branch.rate else (1, [1, 1])
            result.append({"op": "conv", "kernel": kernel, "rate": rate, "input": branch.input})
    return result
