"""Interactive plots of a search, as plotly figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from nasseg.pareto import non_dominated
from nasseg.report.figures.front import cost_axis
from nasseg.report.rows import Row, rung_runs_of
from nasseg.report.table import cost_texts, full_miou_text, miou_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BLUE, RED, GREY = "#4a7ebb", "#d1495b", "#b8c4d0"
MARGINS = {"l": 60, "r": 15, "t": 15, "b": 50}
FONT = {"family": "system-ui, sans-serif", "size": 13}
LEGEND = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}

SERIES: tuple[tuple[str, str, str, Callable[[Row], float | None], bool], ...] = (
    ("{}, lower rungs", GREY, "circle", lambda row: None if row.status == "complete" else row.proxy_miou, False),
    ("{}, top rung", BLUE, "circle", lambda row: row.proxy_miou if row.status == "complete" else None, True),
    ("end to end", RED, "diamond", lambda row: row.full_miou, True),
)
"""Label (with the name of the trainings up to a rung), colour, symbol, score, and whether it has a front."""


def front_plot(rows: Sequence[Row], best: str) -> Figure:
    """Plot mIoU against cost: every candidate at its last rung, the fronts, references and the best (a key) named."""
    import plotly.graph_objects as go

    name, costs = cost_axis(rows)
    cost_of = {row.key: cost for row, cost in zip(rows, costs, strict=True)}
    figure = go.Figure()
    for text, colour, symbol, score, lined in SERIES:
        label = text.format(rung_runs_of(rows))
        # The legend shows the first point's symbol, so the named ones come last.
        shown = sorted(
            (row for row in rows if cost_of[row.key] is not None and score(row) is not None),
            key=lambda row: row.label is not None or row.key == best,
        )
        if not shown:
            continue
        points: list[tuple[float, float]] = [(cost_of[row.key] or 0.0, score(row) or 0.0) for row in shown]
        if lined:
            front = [points[i] for i in non_dominated(points)]
            x, y = zip(*front, strict=True)
            line = {"color": colour, "width": 1.5, "shape": "hv"}
            figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", name=f"front, {label}")
        named = [row.label or ("best" if row.key == best and lined else "") for row in shown]
        figure.add_scatter(
            x=[cost for cost, _ in points],
            y=[miou for _, miou in points],
            mode="markers+text",
            name=label,
            text=[text if lined else "" for text in named],
            textposition="top center",
            marker={
                "color": colour,
                "symbol": [("star" if text else symbol) for text in named],
                "size": [(15 if text else 8) for text in named],
                "line": {"color": "#222", "width": [(0.8 if text else 0) for text in named]},
            },
            customdata=[hover_text(row) for row in shown],
            hovertemplate="%{customdata}<extra>" + label + "</extra>",
        )
    figure.update_xaxes(title=name)
    figure.update_yaxes(title="mIoU")
    return _styled(figure, height=460)


def budget_plot(history: Sequence[tuple[float, float]], baseline: float | None) -> Figure:
    """Plot the best score so far against the budget spent, as (minutes, score), and the baseline's score."""
    import plotly.graph_objects as go

    figure = go.Figure()
    spent, scores = zip(*history, strict=True) if history else ((), ())
    line = {"shape": "hv", "color": BLUE, "width": 2}
    figure.add_scatter(x=spent, y=scores, mode="lines+markers", line=line, name="best so far")
    if baseline is not None:
        figure.add_hline(
            y=baseline, line={"color": RED, "dash": "dash", "width": 1.5}, annotation_text=f"baseline {baseline:.4f}"
        )
    figure.update_xaxes(title="budget spent (min)", rangemode="tozero")
    figure.update_yaxes(title="score")
    return _styled(figure, height=320)


def hover_text(row: Row) -> str:
    """Describe a candidate's numbers and its choice in the simple HTML that plotly takes."""
    step = "" if row.step is None else f" at step {row.step}"
    lines = [
        f"<b>{escape(row.name)}</b>",
        f"mIoU {row.rung_runs} {miou_text(row.proxy_miou)}{step}",
        f"mIoU end to end {full_miou_text(row)}",
        "{} params, {} MAdds, {}".format(*cost_texts(row)),
        *map(escape, choice_lines(row.choice)),
    ]
    return "<br>".join(lines)


def choice_lines(choice: Mapping[str, object]) -> list[str]:
    """Describe a choice in a few lines: one per element of a list, else one per field."""
    lines = []
    for name, value in choice.items():
        if isinstance(value, (list, tuple)):
            lines += [f"{name}[{index}]: {_short(element)}" for index, element in enumerate(value)]
        else:
            lines.append(f"{name}: {_short(value)}")
    return lines


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(inner)}" for key, inner in value.items() if inner is not None)
    return "×".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _styled(figure: Figure, height: int) -> Figure:
    figure.update_layout(template="plotly_white", height=height, margin=MARGINS, font=FONT, legend=LEGEND)
    return figure
