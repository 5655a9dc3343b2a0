"""Pieces of an HTML page, which know nothing of searches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing
    from plotly.graph_objects import Figure


def document(title: str, sections: Iterable[str]) -> str:
    """Assemble a whole HTML document."""
    title = escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{CSS}</style></head>\n'
        f"<body><main><h1>{title}</h1>\n"
        + "\n".join(sections)
        + f"\n</main><script>{SORT_SCRIPT}</script></body></html>\n"
    )


def section(title: str, content: str) -> str:
    """Put content below a heading."""
    return f"<section><h2>{title}</h2>{content}</section>"


def table(
    header: Sequence[str], body: Iterable[Sequence[str]], first_bold: bool = False, sortable: bool = False
) -> str:
    """Make a table of HTML cells; `sortable` lets a click on a column sort by it."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    rows = "".join(
        f"<tr{' class=first' if first_bold and index == 0 else ''}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        for index, row in enumerate(body)
    )
    return f"<table{' class=sortable' if sortable else ''}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def tile(name: str, value: str, note: str) -> str:
    """Make a tile of a large number."""
    return f'<div class="tile"><div class="name">{name}</div><div class="value">{value}</div>{note}</div>'


def difference(value: float | None, before: float | None, tied: bool = False) -> str:
    """Note the change of a value that should grow; nothing if either is unknown, and no praise if they are `tied`."""
    if value is None or before is None:
        return ""
    change = f"{value - before:+.4f}"
    return f'<div class="note faint">{change}, a tie</div>' if tied else _note(change, value >= before)


def ratio(value: float | None, before: float | None) -> str:
    """Note the change in percent of a value that should shrink; nothing if either is unknown."""
    if not value or not before:
        return ""
    return _note(f"{100 * (value / before - 1):+.0f} %", value <= before)


def _note(text: str, good: bool) -> str:
    return f'<div class="note {"good" if good else "bad"}">{text}</div>'


def plot(figure: Figure, name: str, script: bool = False) -> str:
    """Embed a plotly figure; the first one of a page brings the `script`."""
    from plotly.io import to_html

    html: str = to_html(
        figure,
        full_html=False,
        include_plotlyjs=script,
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
    return html


def drawings(figures: Iterable[Drawing]) -> str:
    """Embed matplotlib figures as SVG, one below the other."""
    from nasseg.report.figures.figure import to_svg

    return "".join(f'<div class="drawing">{to_svg(figure)}</div>' for figure in figures)


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
