"""Progress on stderr of what precedes a search: a bar for each thing that is read or measured."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class ProfileBars:
    """A context with a bar for each thing, once there is some: `with ProfileBars() as bars: bars.show(…)`."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._bars = Progress(*columns, console=Console(stderr=True), transient=True)
        self._tasks: dict[str, TaskID] = {}

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
        """Show how many operators, networks or images, as `what` says, are done `of` so many."""
        if what not in self._tasks:
            self._bars.start()
            self._tasks[what] = self._bars.add_task(what, total=of)
        self._bars.update(self._tasks[what], completed=done, total=of)
