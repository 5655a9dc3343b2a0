"""Drawings of weighted graphs: a trellis of paths, a cell's operators, with the chosen edges in colour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from nasseg.report.figures.architecture import FAINT, FONT, INK
from nasseg.report.figures.figure import new_figure
from nasseg.space.weighted_graph import WeightedEdge, WeightedGraph

CHOSEN, OTHER, PANEL = "#d1495b", "#8fa3b8", "#f4f6f8"
TITLE_POINTS, LABEL_POINTS, SMALL_POINTS = 10.0, 8.5, 7.0
MARGIN, TITLE_HEIGHT, HEADER_HEIGHT, AXIS_WIDTH, AXIS_HEIGHT = 0.15, 0.55, 0.25, 0.55, 0.45  # inches
COLUMN_WIDTH, ROW_HEIGHT = 0.95, 0.85  # of a trellis, inches
PANEL_WIDTH, BAR_HEIGHT, PANEL_GAP, OPERATORS_WIDTH = 1.15, 0.125, 0.1, 1.6  # of bars, inches
LEAST_OPACITY, LEAST_WIDTH, MOST_WIDTH = 0.15, 0.5, 4.5
SCALE = (0.1, 0.5, 1.0)
"""Weights in the legend of a trellis."""
LEGEND_STYLE: dict[str, Any] = {"frameon": False, "handlelength": 1.6, "handleheight": 0.8, "columnspacing": 1.4}


def draw_weights(graph: WeightedGraph, note: str = "") -> Figure:
    """Draw the graph, with `note` below its title.

    If no two nodes have more than one edge between them, it is a trellis: lines as wide and opaque as their weight.
    Otherwise it is a table of bar charts: the operators of the edges from a column's node to a row's.
    """
    pairs = Counter((edge.source, edge.target) for edge in graph.edges)
    return _trellis(graph, note) if max(pairs.values(), default=0) <= 1 else _bars(graph, note)


def _trellis(graph: WeightedGraph, note: str) -> Figure:
    places = {node.name: (node.column, node.row) for node in graph.nodes}
    columns, rows = sorted({x for x, _ in places.values()}), sorted({y for _, y in places.values()})
    width = AXIS_WIDTH + (columns[-1] - columns[0] + 1) * COLUMN_WIDTH + MARGIN
    height = TITLE_HEIGHT + (rows[-1] - rows[0] + 0.7) * ROW_HEIGHT + AXIS_HEIGHT
    figure, axes = _figure(width, height, graph.title, note)
    left, bottom = AXIS_WIDTH / width, AXIS_HEIGHT / height
    axes.set_position((left, bottom, 1 - left - MARGIN / width, 1 - bottom - TITLE_HEIGHT / height))
    axes.set(xlim=(columns[0] - 0.5, columns[-1] + 0.5), ylim=(rows[-1] + 0.35, rows[0] - 0.35))

    for colour, edges in ((OTHER, [e for e in graph.edges if not e.chosen]), (CHOSEN, _chosen(graph))):
        lines = [(places[edge.source], places[edge.target]) for edge in edges]
        widths, alphas = [_line_width(edge.weight) for edge in edges], [_opacity(edge.weight) for edge in edges]
        collection = LineCollection(lines, colors=colour, alpha=alphas, linewidths=widths, capstyle="round", zorder=1)
        axes.add_collection(collection)
    small: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL_POINTS, "family": FONT}
    plain = {"facecolor": "white", "edgecolor": "none", "boxstyle": "round,pad=0.12", "alpha": 0.9}
    for edge in _chosen(graph):
        (x, y), (to_x, to_y) = places[edge.source], places[edge.target]
        middle = (x + to_x) / 2, (y + to_y) / 2
        axes.text(*middle, f"{edge.weight:.2f}", color=CHOSEN, bbox=plain, zorder=3, **small)

    labels = {node.row: node.label for node in sorted(graph.nodes, key=lambda node: node.column)}
    passed = {name for edge in _chosen(graph) for name in (edge.source, edge.target)}
    for node in graph.nodes:
        colour = CHOSEN if node.name in passed else OTHER
        text = "" if node.label == labels[node.row] else node.label
        box = {"facecolor": "white", "edgecolor": colour, "boxstyle": "round,pad=0.3", "linewidth": 1.4}
        axes.text(node.column, node.row, text or "  ", color=INK, bbox=box, zorder=4, **small)
    axes.set_xticks(columns, [f"{x:g}" for x in columns])
    axes.set_yticks(rows, [labels[row] for row in rows])
    axes.set_xlabel("layer", loc="left", fontsize=LABEL_POINTS, color=INK)
    axes.set_ylabel("stride", fontsize=LABEL_POINTS, color=INK)
    axes.tick_params(length=0, labelsize=LABEL_POINTS, labelcolor=INK)
    axes.spines[:].set_visible(False)
    scale = [
        Line2D([], [], color=OTHER, linewidth=_line_width(weight), alpha=_opacity(weight), label=f"{weight:g}")
        for weight in SCALE
    ]
    _legend(figure, [*scale, Line2D([], [], color=CHOSEN, linewidth=_line_width(0.5), label="decoded")])
    return figure


def _opacity(weight: float) -> float:
    return LEAST_OPACITY + (1 - LEAST_OPACITY) * weight


def _line_width(weight: float) -> float:
    return LEAST_WIDTH + (MOST_WIDTH - LEAST_WIDTH) * weight


def _bars(graph: WeightedGraph, note: str) -> Figure:
    labels = {node.name: node.label for node in graph.nodes}
    sources = [name for name in labels if any(edge.source == name for edge in graph.edges)]
    targets = [name for name in labels if any(edge.target == name for edge in graph.edges)]
    operators = list(dict.fromkeys(edge.label for edge in graph.edges))
    panel_height = len(operators) * BAR_HEIGHT
    width = OPERATORS_WIDTH + len(sources) * PANEL_WIDTH + MARGIN
    first_row = TITLE_HEIGHT + HEADER_HEIGHT
    height = first_row + len(targets) * (panel_height + PANEL_GAP) + AXIS_HEIGHT
    figure, axes = _figure(width, height, graph.title, note)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    lefts = {name: OPERATORS_WIDTH + index * PANEL_WIDTH for index, name in enumerate(sources)}
    tops = {name: first_row + index * (panel_height + PANEL_GAP) for index, name in enumerate(targets)}
    bar_width = PANEL_WIDTH - PANEL_GAP
    full = max(edge.weight for edge in graph.edges)
    small: dict[str, Any] = {"fontsize": SMALL_POINTS, "family": FONT, "va": "center_baseline"}
    large = small | {"fontsize": LABEL_POINTS}

    for source, target in {(edge.source, edge.target) for edge in graph.edges}:
        axes.add_patch(Rectangle((lefts[source], tops[target]), bar_width, panel_height, color=PANEL, zorder=0))
    for colour, edges in ((OTHER, [e for e in graph.edges if not e.chosen]), (CHOSEN, _chosen(graph))):
        middles = [tops[e.target] + (operators.index(e.label) + 0.5) * BAR_HEIGHT for e in edges]
        lengths, starts = [e.weight / full * bar_width for e in edges], [lefts[e.source] for e in edges]
        axes.barh(middles, lengths, left=starts, height=0.72 * BAR_HEIGHT, color=colour, zorder=1)
    for edge in _chosen(graph):
        end = lefts[edge.source] + edge.weight / full * bar_width
        y = tops[edge.target] + (operators.index(edge.label) + 0.5) * BAR_HEIGHT
        inside = edge.weight > full / 2
        x, side, colour = (end - 0.03, "right", "white") if inside else (end + 0.03, "left", CHOSEN)
        axes.text(x, y, f"{edge.weight:.2f}", ha=side, color=colour, **small)
    for name, x in lefts.items():
        axes.text(x + bar_width / 2, first_row - 0.13, labels[name], ha="center", color=INK, **large)
    for name, y in tops.items():
        axes.text(MARGIN, y + panel_height / 2, labels[name], color=INK, **large)
        used = {edge.label for edge in graph.edges if edge.target == name}
        for index, operator in enumerate(operators):
            if operator in used:
                middle = y + (index + 0.5) * BAR_HEIGHT
                axes.text(OPERATORS_WIDTH - 0.06, middle, operator.replace("_", " "), ha="right", color=FAINT, **small)
    axes.text(OPERATORS_WIDTH - 0.06, first_row - 0.13, "from", ha="right", color=FAINT, **small)
    axes.text(MARGIN, first_row - 0.13, "into", color=FAINT, **small)
    _legend(
        figure, [Patch(color=OTHER, label=f"weight, a full bar is {full:.2f}"), Patch(color=CHOSEN, label="decoded")]
    )
    return figure


def _legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put the legend in one line at the bottom right."""
    font = FontProperties(family=FONT, size=SMALL_POINTS)
    figure.legend(handles=handles, loc="lower right", ncols=len(handles), labelcolor=FAINT, prop=font, **LEGEND_STYLE)


def _figure(width_inches: float, height_inches: float, title: str, note: str) -> tuple[Figure, Axes]:
    """Make a figure filled by one axes, with a title and a note at the top."""
    figure = new_figure(width_inches, height_inches)
    left, top = MARGIN / width_inches, 1 - MARGIN / height_inches
    figure.text(left, top, title, fontsize=TITLE_POINTS, color=INK, weight="bold", family=FONT, va="top")
    below = top - 0.2 / height_inches
    figure.text(left, below, note, fontsize=SMALL_POINTS, color=FAINT, family=FONT, va="top")
    return figure, figure.add_axes((0, 0, 1, 1))


def _chosen(graph: WeightedGraph) -> list[WeightedEdge]:
    return [edge for edge in graph.edges if edge.chosen]
