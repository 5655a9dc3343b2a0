"""`report.html`: a whole search on one page that needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from nasseg.experiment.trust import Gain, Trust
from nasseg.graph import Architecture, write_atomically
from nasseg.report.page.elements import difference, document, drawings, plot, ratio, section, table, tile
from nasseg.report.rows import Row, rung_runs_of
from nasseg.report.table import (
    FRONT_TITLE,
    billions_text,
    cost_texts,
    front_rows,
    full_miou_text,
    gain_text,
    latency_text,
    millions_text,
    miou_text,
)

MOST_LISTED = 2000
"""Candidates in the plot and the table, the best: a page with all of a long search would take a browser's memory."""
COMPARED_BY_CLASS = 4
"""References beside the best network in the table of classes, as far as a page is wide."""

if TYPE_CHECKING:
    from nasseg.space.weighted_graph import WeightedGraph
    from nasseg.train.relaxation.trainer import RelaxationSnapshot


@dataclass(frozen=True)
class Report:
    """The content of the page.

    `best` is the key of the best row. The rows with a label are the references, the first of them the baseline.
    `history` is the best score so far against the budget spent, as (minutes, score). `place` is the part of the best
    architecture that is drawn, `None` for all of it; `graphs` are further drawings of it. `limits` tells the limits on
    candidates, if any, and `training` how these were trained. `gain` is what fresh seeds say of the best network found.
    `front` asks for what each cost buys.
    """

    title: str
    rows: Sequence[Row]
    rungs: Sequence[int]
    best: str
    classes: Sequence[str]
    history: Sequence[tuple[float, float]]
    config: str
    architecture: Architecture | None = None
    place: str | None = None
    graphs: Sequence[WeightedGraph] = ()
    trust: Trust | None = None
    gain: Gain | None = None
    relaxations: Sequence[RelaxationSnapshot] = ()
    limits: str = ""
    training: str = ""
    front: bool = False

    @property
    def best_row(self) -> Row:
        """The row of the best candidate."""
        return next(row for row in self.rows if row.key == self.best)

    @property
    def listed(self) -> Sequence[Row]:
        """The rows of the plot and the table: all, or of many those trained furthest with the best scores."""
        if len(self.rows) <= MOST_LISTED:
            return self.rows

        def place(row: Row) -> tuple[bool, bool, int, float]:
            return row.label is not None, bool(row.full), row.step or 0, row.score or 0.0

        listed = {row.key for row in sorted(self.rows, key=place, reverse=True)[:MOST_LISTED]}
        return [row for row in self.rows if row.key in listed]

    @property
    def references(self) -> list[Row]:
        """The handcrafted networks, without the best if it is one of them."""
        return [row for row in self.rows if row.label is not None and row.key != self.best]

    @property
    def baseline(self) -> Row | None:
        """The reference to beat."""
        return next((row for row in self.rows if row.label is not None), None)


def write_report(path: str | Path, report: Report) -> None:
    """Write the page; a reader sees the old one or the new one, never a part."""
    write_atomically(path, page(report))


def page(report: Report) -> str:
    """Make the page as one HTML document that includes plotly's script."""
    from nasseg.report.page.plots import budget_plot, front_plot

    baseline_score = None if report.baseline is None else report.baseline.score
    sections = [
        _headline(report),
        section("Best against the references", _comparison(report)),
        section("Accuracy against cost", plot(front_plot(report.listed, report.best), "front", script=True)),
        section(FRONT_TITLE, _front(report)) if report.front else "",
        section("Score against budget", plot(budget_plot(report.history, baseline_score), "budget")),
    ]
    if report.architecture is not None:
        sections.append(section("The best network", _drawing(report.architecture, report.place, report.graphs)))
    if report.relaxations:
        sections.append(section("The search by gradient", _relaxations(report.relaxations)))
    if report.trust is not None:
        sections.append(section(f"Can a {rung_runs_of(report.rows)} be trusted?", _trust(report.trust)))
    sections += [
        section("IoU by class", _class_table(report)),
        section(_listed_text(report), _trial_table(report)),
        section("Configuration", f"<pre>{escape(report.config)}</pre>"),
    ]
    return document(report.title, sections)


def _headline(report: Report) -> str:
    best, baseline = report.best_row, report.baseline
    other = None if baseline is None or baseline.key == best.key else baseline
    kind, value, before = "mIoU end to end", best.full_miou, None if other is None else other.full_miou
    tied = False
    if other is not None and best.fresh and other.fresh:
        tied = report.gain is not None and report.gain.verdict == "a tie"
        kind, value, before = "mIoU on fresh seeds", best.fresh_miou, other.fresh_miou
    elif value is None:
        kind, value, before = f"mIoU {best.rung_runs}", best.proxy_miou, None if other is None else other.proxy_miou
    costs = (
        ("parameters", millions_text(best.params), best.params, None if other is None else other.params),
        ("MAdds", billions_text(best.madds), best.madds, None if other is None else other.madds),
        ("latency", latency_text(best.latency_ms), best.latency_ms, None if other is None else other.latency_ms),
    )
    tiles = [
        tile(kind, miou_text(value), difference(value, before, tied)),
        *(tile(name, text, ratio(cost, reference)) for name, text, cost, reference in costs),
    ]
    against = "" if other is None else f" against the baseline <b>{escape(other.name)}</b>"
    if other is None and baseline is not None:
        against = ": no candidate beat the baseline"
    counts = {status: sum(row.status == status for row in report.rows) for status in STATUS_TEXT}
    found = ", ".join(f"{count} {STATUS_TEXT[status]}" for status, count in counts.items() if count)
    kept = f" ({escape(report.limits)}, references excepted)" if report.limits else ""
    gain = "" if report.gain is None else f"<br>{escape(gain_text(report.gain, report.rows))}"
    return (
        f'<p class="lead">Best: <b>{escape(best.name)}</b>{against}. '
        f'<span class="faint">{len(report.rows)} candidates{kept}: {found}. {escape(report.training)}{gain}</span></p>'
        f'<div class="tiles">{"".join(tiles)}</div>'
    )


STATUS_TEXT = {
    "complete": "trained to the top rung",
    "stopped": "stopped early",
    "nonfinite": "diverged",
    "failed": "failed",
    "running": "unfinished",
}


def _comparison(report: Report) -> str:
    rows = [report.best_row, *report.references]
    fresh = any(row.fresh for row in rows)
    header = (
        "network",
        "mIoU end to end",
        "seeds",
        *["fresh seeds"] * fresh,
        f"mIoU {rung_runs_of(rows)}",
        "score",
        "parameters",
        "MAdds",
        "latency",
        "p95",
    )
    body = [
        (
            escape(row.name),
            full_miou_text(row),
            str(len(row.full) or "–"),
            *[miou_text(row.fresh_miou)] * fresh,
            miou_text(row.proxy_miou),
            miou_text(row.score),
            *cost_texts(row),
            latency_text(None if row.latency is None else row.latency.p95_ms),
        )
        for row in rows
    ]
    return table(header, body, first_bold=True) + _conditions(rows)


def _front(report: Report) -> str:
    header, *body = front_rows(report.rows)
    return table(header, [tuple(map(escape, cells)) for cells in body])


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
    from nasseg.report.figures.weighted_graph import draw_weights

    return drawings([*map(draw_weights, graphs), draw(architecture, place)])


def _relaxations(snapshots: Sequence[RelaxationSnapshot]) -> str:
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
    return table(header, body) + drawings(figure for one in snapshots for figure in draw_snapshot(one).values())


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _trust(trust: Trust) -> str:
    header = ("order at", "against the order at", "candidates", "Spearman", "Kendall")
    body = [
        (escape(a.lower), escape(a.upper), str(a.points), _correlation(a.spearman), _correlation(a.kendall))
        for a in trust.agreements
    ]
    note = "Rank correlation of mIoU: 1 is the same order, 0 is no relation."
    if trust.seed_deviation is not None:
        note += f" End-to-end mIoU varies by ± {trust.seed_deviation:.4f} mIoU between seeds, so that much is noise."
    return table(header, body) + f'<p class="faint">{note}</p>'


def _correlation(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _class_table(report: Report) -> str:
    compared = (report.best_row, *report.references[:COMPARED_BY_CLASS])
    rows = [row for row in compared if len(row.class_iou) == len(report.classes)]
    body = []
    for index, name in enumerate(report.classes):
        ious = [row.class_iou[index] for row in rows]
        highest = max((iou for iou in ious if iou is not None), default=None)
        body.append((escape(name), *(_iou_cell(iou, iou == highest and ious.count(iou) == 1) for iou in ious)))
    return table(("class", *(escape(row.name) for row in rows)), body)


def _iou_cell(iou: float | None, highest: bool) -> str:
    if iou is None:
        return "–"
    text = f"<b>{iou:.3f}</b>" if highest else f"{iou:.3f}"
    return f'<span class="bar" style="width:{60 * iou:.0f}px"></span>{text}'


def _listed_text(report: Report) -> str:
    everything, listed = len(report.rows), len(report.listed)
    return f"All {everything} candidates" if everything == listed else f"The best {listed} of {everything} candidates"


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
            *cost_texts(row),
        )
        for row in sorted(report.listed, key=lambda row: -1.0 if row.score is None else row.score, reverse=True)
    ]
    left_out = "" if len(report.listed) == len(report.rows) else " All candidates are in trials.csv."
    hint = f'<p class="faint">Click a column to sort by it.{left_out}</p>'
    return f'{hint}<div class="scroll">{table(header, body, sortable=True)}</div>'
