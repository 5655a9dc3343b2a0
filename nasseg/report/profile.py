"""Progress of a profile on stderr: a bar for operators, one for whole networks."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class ProfileBars:
    """A context that shows how far a profile is, once there is one: `with ProfileBars() as bars: bars.show(…)`."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._bars = Progress(*columns, console=Console(stderr=True), transient=True)
        self._tasks = {what: self._bars.add_task(what, total=None) for what in ("operators", "networks")}

    def __enter__(self) -> ProfileBars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, message: str) -> None:
        """Print a line, above the bars if there are any."""
        self._bars.console.print(message, soft_wrap=True, markup=False, highlight=False)

    def show(self, what: str, done: int, of: int) -> None:
        """Show how many operators or networks, as `what` says, are measured `of` so many."""
        self._bars.start()
        self._bars.update(self._tasks[what], completed=done, total=of)
