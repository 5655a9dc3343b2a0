"""A picture of the trade-off between cost and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nasseg.pareto import non_dominated
from nasseg.report.rows import Row, rung_runs_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cost_axis(rows: Sequence[Row]) -> tuple[str, list[float | None]]:
    """Choose the cost that plots use, and give its name and values: that by which the search went.

    By a latency table it is the latency, as measured if every scored row was, on the table's device, else as predicted;
    without one, MAdds.
    """
    scored = [row for row in rows if row.proxy_miou is not None or row.full]
    if not scored or any(row.predicted_latency_ms is None for row in scored):
        return "MAdds (G)", [None if row.madds is None else row.madds / 1e9 for row in rows]
    if all(row.latency_ms is not None and row.by_measurement for row in scored):
        return "latency (ms)", [row.latency_ms for row in rows]
    return "predicted latency (ms)", [row.predicted_latency_ms for row in rows]


def front_figure(rows: Sequence[Row]) -> Figure:
    """Draw mIoU against cost: top rung and end to end, each with its front, and the references named."""
    from nasseg.report.figures.figure import new_figure

    name, costs = cost_axis(rows)
    figure = new_figure(7, 4.6)
    axes = figure.add_axes((0.1, 0.12, 0.87, 0.84))
    series = (
        (rung_runs_of(rows), "#6f9fd8", "o", [row.proxy_miou if row.status == "complete" else None for row in rows]),
        ("end to end", "#d1495b", "D", [row.full_miou for row in rows]),
    )
    for label, colour, marker, scores in series:
        shown = [(c, s, r) for c, s, r in zip(costs, scores, rows, strict=True) if c is not None and s is not None]
        if not shown:
            continue
        front = [shown[i] for i in non_dominated([(cost, score) for cost, score, _ in shown])]
        x, y, _ = zip(*front, strict=True)
        axes.plot(x, y, color=colour, linewidth=1.2, drawstyle="steps-post", zorder=1)
        plain = [(cost, score) for cost, score, row in shown if row.label is None]
        x, y = zip(*plain, strict=True) if plain else ((), ())
        axes.scatter(x, y, color=colour, marker=marker, s=26, label=label, zorder=2)
        for cost, score, row in shown:
            if row.label is not None:
                axes.scatter([cost], [score], marker="*", s=150, color=colour, edgecolor="#222222", zorder=3)
                axes.annotate(row.label, (cost, score), (6, 5), textcoords="offset points", fontsize=9, zorder=4)
    axes.set(xlabel=name, ylabel="mIoU")
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, loc="lower right")
    return figure
