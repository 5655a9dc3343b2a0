"""`report.html`: a whole search on one page that needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from nasseg.experiment.trust import Trust
from nasseg.graph import Architecture, write_atomically
from nasseg.report.rows import Row
from nasseg.report.table import billions_text, full_miou_text, latency_text, millions_text, miou_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from nasseg.space.weighted_graph import WeightedGraph
    from nasseg.train.relaxation.trainer import RelaxationSnapshot


@dataclass(frozen=True)
class Report:
    """What the page shows.

    `best` is the key of the best row. The rows with a label are the references, the first of them the baseline.
    `history` is the best score so far against the budget spent, as (spent, score) with spent in `budget_unit`. `place`
    is what is drawn of the best architecture; `None` draws all of it. `graphs` are further drawings of it. `limits`
    says what candidates had to keep, if anything.
    """

    title: str
    rows: Sequence[Row]
    rungs: Sequence[int]
    best: str
    classes: Sequence[str]
    history: Sequence[tuple[float, float]]
    budget_unit: str
    config: str
    architecture: Architecture | None = None
    place: str | None = None
    graphs: Sequence[WeightedGraph] = ()
    trust: Trust | None = None
    relaxations: Sequence[RelaxationSnapshot] = ()
    limits: str = ""

    @property
    def best_row(self) -> Row:
        """The row of the best candidate."""
        return next(row for row in self.rows if row.key == self.best)

    @property
    def references(self) -> list[Row]:
        """The handcrafted points, without the best where it is one of them."""
        return [row for row in self.rows if row.label is not None and row.key != self.best]

    @property
    def baseline(self) -> Row | None:
        """The reference to beat."""
        return next((row for row in self.rows if row.label is not None), None)


def write_report(path: str | Path, report: Report) -> None:
    """Write the page; a reader sees the old one or the new one, never a part."""
    write_atomically(path, page(report))


def page(report: Report) -> str:
    """The page as one HTML document, plotly's script included."""
    from nasseg.report.page.plots import budget_plot, front_plot

    baseline = report.baseline
    sections = [
        _headline(report),
        _section("Best against the references", _comparison(report)),
        _section("Accuracy against cost", _plot(front_plot(report.rows, report.best), "front", script=True)),
        _section(
            "Score against budget",
            _plot(
                budget_plot(report.history, report.budget_unit, None if baseline is None else baseline.score),
                "budget",
                script=False,
            ),
        ),
    ]
    if report.architecture is not None:
        sections.append(_section("The best network", _drawing(report.architecture, report.place, report.graphs)))
    if report.relaxations:
        sections.append(_section("The search by gradient", _relaxations(report.relaxations)))
    if report.trust is not None:
        sections.append(_section("Can the proxy be trusted?", _trust(report.trust)))
    sections += [
        _section("IoU by class", _class_table(report)),
        _section(f"All {len(report.rows)} candidates", _trial_table(report)),
        _section("Configuration", f"<pre>{escape(report.config)}</pre>"),
    ]
    title = escape(report.title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{CSS}</style></head>\n'
        f"<body><main><h1>{title}</h1>\n"
        + "\n".join(sections)
        + f"\n</main><script>{SORT_SCRIPT}</script></body></html>\n"
    )


def _headline(report: Report) -> str:
    best, baseline = report.best_row, report.baseline
    other = None if baseline is None or baseline.key == best.key else baseline
    kind, value, before = "mIoU end to end", best.full_miou, None if other is None else other.full_miou
    if value is None:
        kind, value, before = "mIoU proxy", best.proxy_miou, None if other is None else other.proxy_miou
    costs = (
        ("parameters", millions_text(best.params), best.params, None if other is None else other.params),
        ("MAdds", billions_text(best.madds), best.madds, None if other is None else other.madds),
        ("latency", latency_text(best.latency_ms), best.latency_ms, None if other is None else other.latency_ms),
    )
    tiles = [
        _tile(kind, miou_text(value), _difference(value, before)),
        *(_tile(name, text, _ratio(cost, reference)) for name, text, cost, reference in costs),
    ]
    against = "" if other is None else f" against the baseline <b>{escape(other.name)}</b>"
    if other is None and baseline is not None:
        against = ": no candidate beat the baseline"
    counts = {status: sum(row.status == status for row in report.rows) for status in STATUS_TEXT}
    found = ", ".join(f"{count} {STATUS_TEXT[status]}" for status, count in counts.items() if count)
    kept = f" ({escape(report.limits)}, references excepted)" if report.limits else ""
    return (
        f'<p class="lead">Best: <b>{escape(best.name)}</b>{against}. '
        f'<span class="faint">{len(report.rows)} candidates{kept}: {found}.</span></p>'
        f'<div class="tiles">{"".join(tiles)}</div>'
    )


STATUS_TEXT = {
    "complete": "trained to the top rung",
    "stopped": "stopped early",
    "nonfinite": "diverged",
    "failed": "failed",
    "running": "unfinished",
}


def _tile(name: str, value: str, note: str) -> str:
    return f'<div class="tile"><div class="name">{name}</div><div class="value">{value}</div>{note}</div>'


def _difference(value: float | None, before: float | None) -> str:
    if value is None or before is None:
        return ""
    return _note(f"{value - before:+.4f}", value >= before)


def _ratio(value: float | None, before: float | None) -> str:
    if not value or not before:
        return ""
    return _note(f"{100 * (value / before - 1):+.0f} %", value <= before)


def _note(text: str, good: bool) -> str:
    return f'<div class="note {"good" if good else "bad"}">{text}</div>'


def _comparison(report: Report) -> str:
    rows = [report.best_row, *report.references]
    header = ("network", "mIoU end to end", "seeds", "mIoU proxy", "score", "parameters", "MAdds", "latency", "p95")
    body = [
        (
            escape(row.name),
            full_miou_text(row),
            str(len(row.full) or "–"),
            miou_text(row.proxy_miou),
            miou_text(row.score),
            millions_text(row.params),
            billions_text(row.madds),
            latency_text(row.latency_ms),
            latency_text(None if row.latency is None else row.latency.p95_ms),
        )
        for row in rows
    ]
    return _table(header, body, first_bold=True) + _conditions(rows)


def _conditions(rows: Iterable[Row]) -> str:
    latency = next((row.latency for row in rows if row.latency is not None), None)
    if latency is None:
        return ""
    height, width = latency.size
    threads = f"{latency.threads} thread{'s' if latency.threads > 1 else ''}"
    return (
        f'<p class="faint">Latency: median of {latency.runs} runs on {escape(latency.device)}, {latency.dtype}, '
        f"batch {latency.batch}, {height}×{width}, {threads}, torch {escape(latency.torch)}.</p>"
    )


def _drawing(architecture: Architecture, place: str | None, graphs: Sequence[WeightedGraph]) -> str:
    from nasseg.report.figures.architecture import draw
    from nasseg.report.figures.figure import to_svg
    from nasseg.report.figures.weighted_graph import draw_weights

    figures = [*map(draw_weights, graphs), draw(architecture, place)]
    return "".join(f'<div class="drawing">{to_svg(figure)}</div>' for figure in figures)


def _relaxations(snapshots: Sequence[RelaxationSnapshot]) -> str:
    from nasseg.report.figures.figure import to_svg
    from nasseg.report.relaxation import draw_snapshot

    header = ("relaxation", "step", "of", "loss, weights", "loss, architecture", "expected cost")
    body = [
        (
            f"seed {snapshot.seed}",
            f"{snapshot.step:,}",
            f"{snapshot.steps:,}",
            _number(snapshot.train_loss),
            _number(snapshot.architecture_loss),
            _number(snapshot.expected_cost),
        )
        for snapshot in snapshots
    ]
    figures = [figure for snapshot in snapshots for figure in draw_snapshot(snapshot).values()]
    return _table(header, body) + "".join(f'<div class="drawing">{to_svg(figure)}</div>' for figure in figures)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _trust(trust: Trust) -> str:
    header = ("order at", "against the order at", "candidates", "Spearman", "Kendall")
    body = [
        (escape(a.lower), escape(a.upper), str(a.points), _correlation(a.spearman), _correlation(a.kendall))
        for a in trust.agreements
    ]
    noise = (
        ""
        if trust.seed_deviation is None
        else (
            f" One end-to-end training varies by ± {trust.seed_deviation:.4f} mIoU between seeds: "
            "differences of that size are noise."
        )
    )
    return (
        _table(header, body)
        + f'<p class="faint">Rank correlation of mIoU: 1 is the same order, 0 is no relation.{noise}</p>'
    )


def _correlation(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _class_table(report: Report) -> str:
    rows = [row for row in (report.best_row, *report.references) if len(row.class_iou) == len(report.classes)]
    body = []
    for index, name in enumerate(report.classes):
        ious = [row.class_iou[index] for row in rows]
        highest = max((iou for iou in ious if iou is not None), default=None)
        body.append((escape(name), *(_iou_cell(iou, iou == highest and ious.count(iou) == 1) for iou in ious)))
    return _table(("class", *(escape(row.name) for row in rows)), body)


def _iou_cell(iou: float | None, highest: bool) -> str:
    if iou is None:
        return "–"
    text = f"<b>{iou:.3f}</b>" if highest else f"{iou:.3f}"
    return f'<span class="bar" style="width:{60 * iou:.0f}px"></span>{text}'


def _trial_table(report: Report) -> str:
    header = ("candidate", "status", *(f"step {rung}" for rung in report.rungs))
    header += ("end to end", "score", "parameters", "MAdds", "latency")
    body = [
        (
            f'<span title="{escape(row.key)}">{escape(row.name)}</span>',
            f'<span title="{escape(row.message or "")}">{STATUS_TEXT[row.status]}</span>',
            *(miou_text(row.proxy.get(rung)) for rung in report.rungs),
            full_miou_text(row),
            miou_text(row.score),
            millions_text(row.params),
            billions_text(row.madds),
            latency_text(row.latency_ms),
        )
        for row in sorted(report.rows, key=lambda row: -1.0 if row.score is None else row.score, reverse=True)
    ]
    table = _table(header, body, sortable=True)
    return f'<p class="faint">Click a column to sort by it.</p><div class="scroll">{table}</div>'


def _table(
    header: Sequence[str], body: Iterable[Sequence[str]], first_bold: bool = False, sortable: bool = False
) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in header)
    rows = "".join(
        f"<tr{' class=first' if first_bold and index == 0 else ''}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        for index, row in enumerate(body)
    )
    return f"<table{' class=sortable' if sortable else ''}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _plot(figure: Figure, name: str, script: bool) -> str:
    from plotly.io import to_html

    html: str = to_html(
        figure,
        full_html=False,
        include_plotlyjs=script,
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
    return html


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


CSS = """
:root{--ink:#1d2733;--faint:#66727f;--line:#e3e8ed;--good:#1a7f4b;--bad:#b3403f}
*{box-sizing:border-box}
body{margin:0;background:#f5f7f9;color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1100px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:26px;margin:0 0 4px;overflow-wrap:anywhere}h2{font-size:17px;margin:0 0 12px}
.lead{margin:0 0 18px}.faint{color:var(--faint);font-size:13px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px;margin-bottom:18px}
.tile,section{background:#fff;border:1px solid var(--line);border-radius:10px}
.tile{padding:14px 18px}.tile .name{color:var(--faint);font-size:13px}
.tile .value{font-size:27px;font-weight:600;letter-spacing:-.01em}
.note{font-size:13px;font-weight:600}.good{color:var(--good)}.bad{color:var(--bad)}
section{padding:18px 20px;margin-bottom:18px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}
th,td{text-align:right;padding:5px 10px;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--faint);font-weight:600;font-size:13px}
th:first-child,td:first-child{text-align:left}
tr.first td{font-weight:600}tbody tr:hover{background:#f7fafc}
.sortable th{cursor:pointer;position:sticky;top:0;background:#fff}.sortable th:hover{color:var(--ink)}
.sortable td:nth-child(2),.sortable th:nth-child(2){text-align:left}
.scroll{max-height:560px;overflow:auto}
.bar{display:inline-block;height:8px;background:#a9cdec;border-radius:4px;margin-right:8px}
.drawing{overflow-x:auto;text-align:center}.drawing svg{max-width:100%;height:auto}
pre{margin:0;overflow-x:auto;font:13px/1.5 ui-monospace,Menlo,Consolas,monospace}
"""

SORT_SCRIPT = """
for (const table of document.querySelectorAll("table.sortable"))
  table.querySelectorAll("th").forEach((head, column) => head.addEventListener("click", () => {
    const value = row => { const text = row.cells[column].textContent, number = parseFloat(text);
                           return text === "–" ? -Infinity : isNaN(number) || column === 0 ? text : number; };
    const compare = (a, b) => value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0;
    const sign = head.dataset.sign = head.dataset.sign === "-1" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].sort((a, b) => sign * compare(a, b));
    table.tBodies[0].append(...rows);
  }));
"""
