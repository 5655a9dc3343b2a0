"""`trials.csv`, and the table that a search ends with."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nasseg.graph import write_atomically
from nasseg.report.figures.front import cost_axis
from nasseg.report.rows import Row, rung_runs_of

if TYPE_CHECKING:
    from rich.table import Table

    from nasseg.experiment.trust import Gain

FRONT_TITLE = "What each cost buys"


def write_trials(path: str | Path, rows: Sequence[Row], rungs: Sequence[int]) -> None:
    """Write one line per candidate: how far it got, its mIoU by rung and end to end, costs, score, and its choice.

    A reader sees the old file or the new one, never a part. Unknown values are empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            *("key", "label", "status", "step_reached"),
            *(f"proxy_miou_step_{rung}" for rung in rungs),
            *("full_miou_mean", "full_miou_std", "full_seeds", "fresh_miou_mean", "fresh_seeds"),
            *("score", "params", "madds", "latency_ms", "predicted_latency_ms"),
            *("message", "choice"),
        ]
    )
    for row in rows:
        writer.writerow(
            [
                *(row.key, row.label, row.status, row.step),
                *(row.proxy.get(rung) for rung in rungs),
                *(row.full_miou, row.full_miou_deviation, len(row.full), row.fresh_miou, len(row.fresh)),
                *(row.score, row.params, row.madds, row.latency_ms, row.predicted_latency_ms, row.message),
                json.dumps(row.choice, sort_keys=True),
            ]
        )
    write_atomically(path, text.getvalue())


def summary_table(rows: Sequence[Row], title: str | None = None) -> Table:
    """Compare the best network, the first row, with the references: mIoU, parameters, MAdds, latency.

    A column has the mIoU on fresh seeds if there are any. If a table predicts latencies, they stand in brackets beside
    the measured ones. All of it fits into 80 characters.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("network", no_wrap=True)
    predicted = any(row.predicted_latency_ms is not None for row in rows)
    fresh = any(row.fresh for row in rows)
    for column in (f"mIoU {rung_runs_of(rows)}", "mIoU end to end", *["fresh seeds"] * fresh):
        table.add_column(column, justify="right", min_width=len("0.1234"))
    for column in ("params", "MAdds", "latency\n(predicted)" if predicted else "latency"):
        table.add_column(column, justify="right", no_wrap=True)  # a number stays with its unit
    for index, row in enumerate(rows):
        *costs, latency = cost_texts(row)
        table.add_row(
            row.name,
            miou_text(row.proxy_miou),
            full_miou_text(row),
            *[miou_text(row.fresh_miou)] * fresh,
            *costs,
            f"{latency} ({row.predicted_latency_ms or math.nan:.1f})" if predicted else latency,
            style="bold" if index == 0 else None,
        )
    return table


def front_table(rows: Sequence[Row]) -> Table:
    """Make the table of `front_rows`."""
    from rich.table import Table

    header, *body = front_rows(rows)
    table = Table(title=FRONT_TITLE)
    for column in header[:-1]:
        table.add_column(column, justify="right")
    table.add_column(header[-1], no_wrap=True)
    for cells in body:
        table.add_row(*cells)
    return table


def front_rows(rows: Sequence[Row]) -> list[tuple[str, str, str, str]]:
    """Tell what each cost buys: of networks trained end to end, the front and the references, cheapest first.

    A header, then a row a network; one column has the best mIoU of any that costs no more and keeps the limits.
    """
    trained = [row for row in rows if row.full_miou is not None]
    name, costs = cost_axis(trained)
    points = [(cost, row.full_miou, row) for cost, row in zip(costs, trained, strict=True) if cost and row.full_miou]
    found = [(name, "mIoU end to end", "best for no more", "network")]
    best = 0.0
    for cost, miou, row in sorted(points, key=lambda point: (point[0], -point[1])):
        is_better = row.feasible and miou > best
        best = miou if is_better else best
        if is_better or row.label is not None:
            found.append((f"{cost:.2f}", full_miou_text(row), miou_text(best or None), row.name))
    return found


def miou_text(miou: float | None) -> str:
    """Write an mIoU with four digits."""
    return "–" if miou is None else f"{miou:.4f}"


def full_miou_text(row: Row) -> str:
    """Write the end-to-end mIoU as mean ± deviation over seeds."""
    deviation = row.full_miou_deviation
    return miou_text(row.full_miou) + ("" if deviation is None else f" ± {deviation:.4f}")


def gain_text(gain: Gain, rows: Iterable[Row]) -> str:
    """Tell what fresh seeds say of the network found, one of the rows, and of the baseline."""
    name = next(row.name for row in rows if row.key == gain.found)
    difference = f"{gain.miou:+.4f} mIoU"
    if gain.interval is not None:
        low, high = gain.interval
        difference += f", 95 % interval {low:+.4f} to {high:+.4f}: {gain.verdict}"
    seeds = " and ".join(map(str, gain.seeds))
    return f"{name} against {gain.baseline} on fresh seeds ({seeds}): {difference}"


def millions_text(count: int | None) -> str:
    """Write a count in millions."""
    return "–" if count is None else f"{count / 1e6:.2f} M"


def billions_text(count: int | None) -> str:
    """Write a count in billions."""
    return "–" if count is None else f"{count / 1e9:.2f} G"


def latency_text(latency_ms: float | None) -> str:
    """Write a latency in milliseconds."""
    return "–" if latency_ms is None else f"{latency_ms:.1f} ms"


def cost_texts(row: Row) -> tuple[str, str, str]:
    """Write a row's parameters, MAdds and latency."""
    return millions_text(row.params), billions_text(row.madds), latency_text(row.latency_ms)
