"""The dense prediction cell space (Chen et al., arXiv 1809.04184, §3.1).

A cell has B branches (X_i, OP_i, Y_i): X_i is the backbone's output F or an earlier branch's output, OP_i one of 81
operators. The branches' outputs are concatenated and projected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from baselines.backbones import BACKBONES
from baselines.dense_prediction_cell import ASPP, FEATURES, PUBLISHED, Branch, Cell, dense_prediction_cell
from baselines.heads import classifier, decoder
from nasseg.graph import Architecture, Builder
from nasseg.ops.base import Channels
from nasseg.space import Decide, Space

RATES = (1, 3, 6, 9, 12, 15, 18, 21)
GRIDS = (1, 2, 4, 8)


class DPC(Space[Cell]):
    """Dense prediction cells on a backbone: `dpc:branches=3,filters=64,decoder=true`.

    `decoder` is DeepLabV3+'s; by default, as in the paper, MobileNetV2 has none and other backbones have one.
    """

    branches: Annotated[int, Field(ge=1, le=16)] = 5
    backbone: Literal["mobilenetv2", "resnet18", "resnet50", "resnet101", "xception65", "xception71"] = "mobilenetv2"
    output_stride: Literal[8, 16, 32] = 16
    filters: Channels = 256
    decoder: bool | None = None

    drawn_place: ClassVar = "cell"
    shared_stage: ClassVar = "backbone"

    def decisions(self, decide: Decide) -> None:
        """Take the input and operator of each branch, then both parts of its rate or grid."""
        decide_cell(decide, "branches", self.branches)

    def references(self) -> dict[str, Cell]:
        """Return ASPP and the published cell if B = 5, else the point with ASPP's first operators."""
        if self.branches == len(PUBLISHED.branches):
            return {"aspp": ASPP, "dpc": PUBLISHED}
        repeated = tuple(ASPP.branches[index % len(ASPP.branches)] for index in range(self.branches))
        return {"aspp": self.canonical(Cell(branches=repeated))}

    def canonical(self, choice: Cell) -> Cell:
        """Order the branches (`canonical_cell`)."""
        return canonical_cell(choice)

    def parse(self, data: object) -> Cell:
        """Read a cell from a file's `choice`, or from the published file format (a list of branches)."""
        return super().parse(from_published(data) if isinstance(data, list) else data)

    def architecture(self, choice: Cell, classes: int) -> Architecture:
        """Build backbone, cell, optional decoder and classifier."""
        g = Builder("dpc")
        image = g.input()
        features = BACKBONES[self.backbone](g, image, self.output_stride)
        x = dense_prediction_cell(g, features.output, choice, output_stride=self.output_stride, filters=self.filters)
        if self.decoder or (self.decoder is None and self.backbone != "mobilenetv2"):
            x = decoder(g, x, features.low_level, channels=self.filters, separable=True)
        return g.build(classifier(g, x, image, classes))


def decide_cell(decide: Decide, name: str, branches: int) -> None:
    """Decide the branches of a cell, which are the field `name` of the choice."""
    for i in range(branches):
        decide.ordered(f"{name}.{i}.input", range(FEATURES, i))
        ways = (1, len(RATES) ** 2, len(GRIDS) ** 2)
        op = decide.category(f"{name}.{i}.op", ("conv1x1", "atrous", "pool"), ways=ways)
        if op != "conv1x1":
            field, options = ("rate", RATES) if op == "atrous" else ("grid", GRIDS)
            for axis in range(2):
                decide.ordered(f"{name}.{i}.{field}.{axis}", options)


def canonical_cell(cell: Cell) -> Cell:
    """Order branches as in the rooted tree that they form, with children sorted by what their subtrees compute.

    The order of concatenation does not distinguish cells: the projection's weights absorb it.
    """
    children: dict[int, list[int]] = {}
    for index, branch in enumerate(cell.branches):
        children.setdefault(branch.input, []).append(index)

    def code(index: int) -> tuple[object, ...]:
        return (cell.branches[index].operator, *sorted(map(code, children.get(index, []))))

    ordered: list[Branch] = []

    def visit(index: int, source: int) -> None:
        if index != FEATURES:
            ordered.append(cell.branches[index].on(source))
            source = len(ordered) - 1
        for child in sorted(children.get(index, []), key=code):
            visit(child, source)

    visit(FEATURES, FEATURES)
    return Cell(branches=tuple(ordered))


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
