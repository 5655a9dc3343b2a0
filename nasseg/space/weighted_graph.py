"""Graphs whose edges have weights, to be drawn: the mixtures of a relaxation, the path of a point."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from nasseg.run_folder import FileName


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WeightedNode(_Data):
    """A node of a drawing at its position: `column` from left to right, `row` from top to bottom."""

    name: str
    column: float
    row: float
    label: str


class WeightedEdge(_Data):
    """An edge of a drawing, with its weight from 0 to 1, and whether the decoded network has it."""

    source: str
    target: str
    weight: float
    label: str = ""
    chosen: bool = False


class WeightedGraph(_Data):
    """A drawing of weights, such as a relaxation's: a trellis of paths, a cell of operators.

    `name` names the drawing's files.
    """

    name: FileName
    title: str
    nodes: tuple[WeightedNode, ...]
    edges: tuple[WeightedEdge, ...]
