"""The scores of a network as a table, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nasseg.train.metrics import Metrics

if TYPE_CHECKING:
    from rich.table import Table


def score_table(title: str, classes: Sequence[str], metrics: Metrics) -> Table:
    """List the IoU of every class and their mean, with boundary IoU if it was measured."""
    from rich.table import Table

    edges = metrics.class_boundary_iou
    table = Table("class", "IoU", *(["boundary IoU"] if edges else []), title=title)
    for index, (name, iou) in enumerate(zip(classes, metrics.class_iou, strict=True)):
        table.add_row(name, _score(iou), *([_score(edges[index])] if edges else []))
    means = [_score(metrics.miou), *([_score(metrics.boundary_miou)] if edges else [])]
    table.add_row("mean", *means, style="bold")
    return table


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
