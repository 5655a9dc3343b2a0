"""Live progress of a search on stderr: a panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

LINE_INTERVAL_S = 30.0


@dataclass(frozen=True)
class Progress:
    """The progress of a search. `spent` and `budget` are in `unit` (`min`, `gpu-h`, `trials`, …).

    `stopped` counts the candidates left at a lower rung, `seconds_left` estimates the time to the end. `best` and
    `baseline` are the mIoU of two networks trained equally far, `compared_at` that step, or empty end to end.
    """

    phase: str
    spent: float
    budget: float
    unit: str
    done: int = 0
    running: int = 0
    stopped: int = 0
    failed: int = 0
    best: float | None = None
    best_name: str | None = None
    baseline: float | None = None
    baseline_name: str | None = None
    compared_at: str = ""
    seconds_left: float | None = None

    @property
    def counts_text(self) -> str:
        """The number of candidates by outcome."""
        return f"{self.done} done, {self.running} running, {self.stopped} stopped early, {self.failed} failed"

    @property
    def scores_text(self) -> str:
        """The best score beside the baseline's."""
        parts = [_score_text("best", self.best, self.best_name)]
        parts.append(_score_text("baseline", self.baseline, self.baseline_name))
        if self.best is not None and self.baseline is not None:
            parts[0] += f" {self.best - self.baseline:+.4f}"
        return ", ".join(parts) + (f" at {self.compared_at}" if self.compared_at else "")

    @property
    def budget_text(self) -> str:
        """Budget spent and left."""
        left = max(0.0, self.budget - self.spent)
        return f"{_number(self.spent)} of {_number(self.budget)} {self.unit} spent, {_number(left)} left"

    @property
    def end_text(self) -> str:
        """Time to the end."""
        return "" if self.seconds_left is None else f"{duration_text(self.seconds_left)} to the end"

    def line(self) -> str:
        """Put everything in one line."""
        parts = (self.phase, self.counts_text, self.scores_text, self.budget_text, self.end_text)
        return " | ".join(part for part in parts if part)


class LiveProgress:
    """A context that shows the progress it is given: `with LiveProgress() as live: live.update(progress)`.

    Without a terminal it prints a line whenever the phase or the best score changes, and at least every 30 seconds.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console(stderr=True, markup=False)
        self._clock = clock
        self._live = Live(console=self.console, refresh_per_second=4, transient=True)
        self._last: Progress | None = None
        self._printed: tuple[float, str, float | None] | None = None

    def __enter__(self) -> LiveProgress:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()
        if self._last is not None:
            self._print_line(self._last)

    def update(self, progress: Progress) -> None:
        """Show `progress`; cheap enough to call for every result."""
        self._last = progress
        if self.console.is_terminal:
            self._live.update(panel(progress))
            return
        now = self._clock()
        if (
            self._printed is None
            or now - self._printed[0] >= LINE_INTERVAL_S
            or (progress.phase, progress.best) != self._printed[1:]
        ):
            self._print_line(progress)

    def print(self, message: RenderableType) -> None:
        """Print a separate message, above the panel if there is one."""
        self.console.print(message, soft_wrap=isinstance(message, str), markup=False, highlight=False)

    def _print_line(self, progress: Progress) -> None:
        self._printed = (self._clock(), progress.phase, progress.best)
        self.print(progress.line())


def panel(progress: Progress) -> Panel:
    """Make the panel that a terminal shows."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", justify="right")
    grid.add_column()
    grid.add_row("candidates", progress.counts_text)
    grid.add_row("score", progress.scores_text)
    grid.add_row("budget", progress.budget_text)
    if progress.end_text:
        grid.add_row("time", progress.end_text)
    bar = ProgressBar(total=max(progress.budget, 1e-9), completed=progress.spent)
    return Panel(Group(grid, bar), title=progress.phase, title_align="left", border_style="blue")


def duration_text(seconds: float) -> str:
    """Write a duration as `1 h 05 min`, `12 min 30 s` or `9 s`."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _score_text(what: str, score: float | None, name: str | None) -> str:
    named = f" ({name})" if name else ""
    return f"{what} –" if score is None else f"{what} {score:.4f}{named}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
