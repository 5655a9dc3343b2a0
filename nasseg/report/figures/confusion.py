"""Which classes are taken for which: a confusion matrix as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from nasseg.report.figures.figure import new_figure

CELL_INCHES = 0.34
LABELLED_CLASSES = 30
"""With more, the cells are too small for numbers."""


def confusion_figure(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Draw counts (true class, predicted class) as percentages of the true class's pixels, a row each."""
    counts = np.asarray(confusion, dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = 100 * np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    side = max(2.0, CELL_INCHES * len(classes)) if len(classes) <= LABELLED_CLASSES else 10.0
    margin = 0.1 + 0.075 * max(map(len, classes))
    figure = new_figure(side + margin + 0.4, side + margin + 0.4)
    width, height = figure.get_size_inches()
    axes = figure.add_axes((margin / width + 0.03, 0.02, side / width, side / height))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("predicted, % of the true class", fontsize=8)
    axes.set_ylabel("true", fontsize=8)
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
    axes.set_yticks(range(len(classes)), classes, fontsize=7)
    axes.tick_params(length=0)
    if len(classes) <= LABELLED_CLASSES:
        for row, column in zip(*np.nonzero(shares >= 0.5), strict=True):
            colour = "white" if shares[row, column] > 55 else "#333333"
            text = f"{shares[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)
    return figure
