"""Drawings of architectures: one box per operator, arrows for tensors, from top to bottom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import networkx as nx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from nasseg.graph import Architecture, Node
from nasseg.ops import Op, Resize, TransposedConv
from nasseg.report.figures.figure import new_figure
from nasseg.report.figures.layout import layered

FAMILIES = {
    "1×1 convolution": "#d6e6f5",
    "convolution": "#a9cdec",
    "atrous convolution": "#f7d9a8",
    "block": "#d9d2ec",
    "pooling": "#cfe8cf",
    "join": "#f2f2ef",
    "resize": "#f6d5d5",
    "other": "#ffffff",
    "input": "#dcdcdc",
}
"""Fill colour by operator family, in the legend's order."""
JOINS = ("concat", "add", "multiply", "gate")
WORDS = {"conv": "conv", "separable_conv": "separable", "transposed_conv": "transposed", "pyramid_pool": "pool"}
INK, EDGE, FAINT = "#222222", "#555555", "#6a6a6a"
TITLE_POINTS, DETAIL_POINTS = 9.0, 6.5
BOX_HEIGHT, LAYER_HEIGHT, ARROW_HEIGHT, MARGIN, LEGEND_ROW = 0.40, 0.74, 0.1, 0.2, 0.2  # inches
FONT = "DejaVu Sans"
BOX_STYLE: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.06", "edgecolor": EDGE, "linewidth": 0.8}
ARROW_STYLE: dict[str, Any] = {"arrowstyle": "-|>,head_length=3.2,head_width=1.7", "color": EDGE, "linewidth": 0.8}
LEGEND_STYLE: dict[str, Any] = {"frameon": False, "handlelength": 1.2, "handleheight": 0.9, "columnspacing": 1.2}


def operator_text(op: Op) -> str:
    """Describe an operator in a figure: "3×3 atrous 6×3", "1×1 conv", "pool 2×4", "3×3 conv /2", "concat"."""
    word = WORDS.get(op.op, op.op.replace("_", " "))
    rate: tuple[int, int] = getattr(op, "rate", (1, 1))
    if op.op == "pyramid_pool":
        grid: tuple[int, int] = getattr(op, "grid", (1, 1))
        return "image pool" if grid == (1, 1) else f"{word} {_pair(grid)}"
    if op.op == "activation":
        norm, activation = getattr(op, "norm", "none"), getattr(op, "activation", "none")
        return " + ".join(part for part in (f"{norm} norm" * (norm != "none"), activation) if part and part != "none")
    if op.op == "dropout":
        return f"dropout {getattr(op, 'probability', 0):g}"
    kernel, stride = getattr(op, "kernel", None), getattr(op, "stride", 1)
    if rate != (1, 1):
        word = "atrous" if op.op in ("conv", "separable_conv") else f"{word}, atrous"
        word += f" {_pair(rate)}"
    elif getattr(op, "groups", 1) > 1:
        word = f"grouped {word}"
    size = "" if kernel is None else f"{kernel}×{kernel} "
    sign = "×" if op.op == "transposed_conv" else "/"
    return f"{size}{word}" + (f" {sign}{stride}" if stride > 1 else "")


def operator_family(op: Op) -> str:
    """Return the operator's key in `FAMILIES`."""
    if getattr(op, "rate", (1, 1)) != (1, 1):
        return "atrous convolution"
    if op.op.endswith("conv"):
        return "1×1 convolution" if getattr(op, "kernel", None) == 1 else "convolution"
    if op.op.endswith("pool"):
        return "pooling"
    if op.op in JOINS:
        return "join"
    if op.op in ("resize", "input"):
        return op.op
    return "block" if hasattr(op, "out_channels") else "other"


def draw(architecture: Architecture, place: str | None = None) -> Figure:
    """Draw the architecture, or the nodes whose dotted names begin with `place`, with their inputs in grey.

    A run of equal operators is one box with "× n". Edges that only give a size are left out, as in papers; what only
    training needs has a dashed outline. Raises `ValueError` if there is no such place.
    """
    boxes, graph = _boxes(architecture, place)
    if not boxes:
        raise ValueError(
            f"{architecture.name} has nothing named {place!r}; its stages: {', '.join(architecture.stages)}"
        )
    layout = layered(graph)
    width = max(max(_inches(b.title, TITLE_POINTS), _inches(b.detail, DETAIL_POINTS)) for b in boxes.values()) + 0.24
    places = {name: (x * width, -y * LAYER_HEIGHT) for name, (x, y) in layout.positions.items()}
    families = {box.family for box in boxes.values()}
    legend = [_patch(colour, family) for family, colour in FAMILIES.items() if family in families]
    if any(box.training_only for box in boxes.values()):
        legend.append(_patch("white", "training only", dashed=True))
    ends = [x + side * width / 2 for x, _ in places.values() for side in (-1, 1)]
    ends += [x * width for route in layout.routes.values() for x, _ in route]
    left, right = min(ends) - MARGIN, max(ends) + MARGIN
    columns = max(1, min(len(legend), int((right - left) / 1.4)))
    legend_height = LEGEND_ROW * -(-len(legend) // columns) + 0.12
    top = max(y for _, y in places.values()) + BOX_HEIGHT / 2 + MARGIN
    bottom = min(y for _, y in places.values()) - BOX_HEIGHT / 2 - MARGIN - legend_height

    figure = new_figure(right - left, top - bottom)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.set_axis_off()
    for route in layout.routes.values():
        _arrow(axes, [(x * width, -y * LAYER_HEIGHT) for x, y in route])
    for name, box in boxes.items():
        _box(axes, box, *places[name], width)
    font = FontProperties(family=FONT, size=DETAIL_POINTS)
    axes.legend(handles=legend, loc="lower center", ncols=columns, borderaxespad=0.4, prop=font, **LEGEND_STYLE)
    return figure


@dataclass(frozen=True)
class _Box:
    title: str
    detail: str
    family: str
    training_only: bool


def _boxes(architecture: Architecture, place: str | None) -> tuple[dict[str, _Box], nx.DiGraph]:
    """Make the boxes, by the name of their first node, and the graph of them."""
    shown = [node for node in architecture.ordered if place is None or f"{node.name}.".startswith(f"{place}.")]
    own = {node.name for node in shown}
    graph = nx.DiGraph()
    graph.add_nodes_from(node.name for node in shown)
    graph.add_edges_from((source, node.name) for node in shown for source in _tensors(node))
    inference = architecture.ancestors(architecture.outputs)

    first: dict[str, str] = {}
    runs: dict[str, list[Node]] = {}
    for node in shown:
        before = next(iter(graph.predecessors(node.name)), None)
        start = first.get(before) if before is not None else None
        joins = (
            start is not None
            and graph.in_degree(node.name) == graph.out_degree(before) == 1
            and runs[start][-1].op == node.op
            and runs[start][-1].stage == node.stage
        )
        first[node.name] = start if joins and start is not None else node.name
        runs.setdefault(first[node.name], []).append(node)

    boxes: dict[str, _Box] = {}
    merged = nx.DiGraph()
    for name in graph:
        if name not in own:
            first[name] = name
            boxes[name] = _Box(name, f"{architecture.channels(name)} channels", "input", False)
    for start, nodes in runs.items():
        boxes[start] = _operator_box(architecture, nodes, place, training_only=start not in inference)
    merged.add_nodes_from(name for name in graph if name in boxes)
    merged.add_edges_from((first[s], first[t]) for s, t in graph.edges if first[s] != first[t])
    return boxes, merged


def _operator_box(architecture: Architecture, nodes: list[Node], place: str | None, training_only: bool) -> _Box:
    node, last = nodes[0], nodes[-1]
    title = operator_text(node.op)
    if node.op.op == "input":
        title = node.name
    elif isinstance(node.op, Resize):
        title = f"resize to {_short(node.inputs[1], place)}" if len(node.inputs) > 1 else f"resize ×{node.op.factor:g}"
    if len(nodes) > 1:
        title += f"  × {len(nodes)}"
    name = _short(node.name, place)
    if len(nodes) > 1:
        name += f" – {last.name.rsplit('.', 1)[-1]}"
    channels = architecture.channels(node.name)
    detail = f"{channels} channels" if node.op.op == "input" else f"{name} · {channels} ch"
    return _Box(title, detail, operator_family(node.op), training_only)


def _tensors(node: Node) -> tuple[str, ...]:
    """List the inputs whose values the node reads, without the one that only gives a size."""
    return node.inputs[:1] if isinstance(node.op, (Resize, TransposedConv)) else node.inputs


def _short(name: str, place: str | None) -> str:
    return name.removeprefix(f"{place}.") if place is not None else name


def _pair(value: tuple[int, int]) -> str:
    return f"{value[0]}×{value[1]}"


def _inches(text: str, points: float) -> float:
    return float(TextPath((0, 0), text, size=points, prop=FontProperties(family=FONT)).get_extents().width / 72)


def _patch(colour: str, label: str, dashed: bool = False) -> Patch:
    return Patch(facecolor=colour, edgecolor=EDGE, linewidth=0.6, linestyle="--" if dashed else "-", label=label)


def _box(axes: Axes, box: _Box, x: float, y: float, width: float) -> None:
    corner, fill, line = (x - width / 2, y - BOX_HEIGHT / 2), FAMILIES[box.family], "--" if box.training_only else "-"
    axes.add_patch(FancyBboxPatch(corner, width, BOX_HEIGHT, facecolor=fill, linestyle=line, zorder=2, **BOX_STYLE))
    text: dict[str, Any] = {"ha": "center", "va": "center", "family": FONT, "zorder": 3}
    axes.text(x, y + 0.065, box.title, fontsize=TITLE_POINTS, color=INK, **text)
    axes.text(x, y - 0.105, box.detail, fontsize=DETAIL_POINTS, color=FAINT, **text)


def _arrow(axes: Axes, route: list[tuple[float, float]]) -> None:
    """Draw an arrow straight down past the boxes of the layers between, and in a curve from layer to layer."""
    half = BOX_HEIGHT / 2
    points, codes = [(route[0][0], route[0][1] - half)], [Path.MOVETO]
    for x, y in route[1:]:
        start_x, start_y = points[-1]
        stop_y = y + half + ARROW_HEIGHT
        middle_y = (start_y + stop_y) / 2
        points += [(start_x, middle_y), (x, middle_y), (x, stop_y), (x, y - half)]
        codes += [Path.CURVE4] * 3 + [Path.LINETO]
    points[-1] = (route[-1][0], route[-1][1] + half)
    path = Path(points, codes)
    axes.add_patch(FancyArrowPatch(path=path, shrinkA=0, shrinkB=0, joinstyle="round", zorder=1, **ARROW_STYLE))
