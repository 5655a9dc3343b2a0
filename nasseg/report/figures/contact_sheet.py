"""Images of a data set with their masks over them, on one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nasseg.data import Sample
from nasseg.report.figures.figure import new_figure
from nasseg.report.figures.pictures import Palette, overlay, rgb

COLUMNS = 4
COLUMN_INCHES = 2.6
CAPTION_INCHES = 0.2
LEGEND_ROW_INCHES = 0.2
MOST_IN_LEGEND = 60


def contact_sheet(samples: Sequence[Sample], palette: Palette) -> Figure:
    """Draw samples in rows, each under its classes' colours and its name; a legend names the classes that occur.

    Ignored pixels show the image unchanged.
    """
    columns = min(COLUMNS, len(samples))
    rows = [samples[start : start + columns] for start in range(0, len(samples), columns)]
    heights = [COLUMN_INCHES * max(s.mask.shape[0] / s.mask.shape[1] for s in row) + CAPTION_INCHES for row in rows]
    occur = sorted({int(index) for sample in samples for index in np.unique(sample.mask.numpy())})
    shown = [index for index in occur if index < len(palette.classes)][:MOST_IN_LEGEND]
    width = columns * COLUMN_INCHES
    in_row = max(1, int(width / 1.3))
    legend = LEGEND_ROW_INCHES * -(-len(shown) // in_row) + 0.15
    height = sum(heights) + legend
    figure = new_figure(width, height)
    top = height
    for row, row_inches in zip(rows, heights, strict=True):
        for column, sample in enumerate(row):
            inches = COLUMN_INCHES * sample.mask.shape[0] / sample.mask.shape[1]
            bottom = top - CAPTION_INCHES - inches
            box = (column / columns + 0.004, bottom / height, 1 / columns - 0.008, inches / height)
            axes = figure.add_axes(box)
            axes.set_axis_off()
            axes.imshow(np.asarray(overlay(sample.image, sample.mask, palette)), aspect="auto")
            axes.set_title(sample.name[-44:], fontsize=6.5, pad=2)
        top -= row_inches
    patches = [Patch(facecolor=rgb(palette.colours[i]), edgecolor="#555555", linewidth=0.5) for i in shown]
    names = [palette.classes[index] for index in shown]
    figure.legend(patches, names, loc="lower center", ncols=in_row, frameon=False, fontsize=7, handlelength=1.2)
    return figure
