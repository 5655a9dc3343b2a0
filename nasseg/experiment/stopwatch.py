"""The time that a search has spent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import NonNegativeFloat, TypeAdapter

from nasseg.foreign import damaged, read_json
from nasseg.graph import write_atomically
from nasseg.run_folder import SPENT_FILE

EVERY_SECONDS = 1.0
"""The most that a kill leaves uncharged."""
_SECONDS = TypeAdapter(NonNegativeFloat)
_FIX = "remove it to count the time anew"


class Stopwatch:
    """The seconds that a search has spent in all its runs, kept in its folder; raises `ValueError` if damaged there."""

    def __init__(self, folder: Path) -> None:
        self._file, self._before, self._start = folder / SPENT_FILE, 0.0, time.monotonic()
        self._end: float | None = self._start
        self._has_run = False
        if self._file.exists():
            with damaged(self._file, _FIX):
                self._before = _SECONDS.validate_python(read_json(self._file, _FIX), strict=True)

    @property
    def seconds(self) -> float:
        """The wall clock of all runs. Once it is `running`, this one began when the stopwatch was made.

        Who only looks at a search, as a report does, takes none of its time. What comes after a run, like measuring
        latency, holds no workers and is not of the budget.
        """
        return self._before + (time.monotonic() if self._end is None else self._end) - self._start

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write the time down every second during the block, and at its end, when it stops."""
        if self._has_run:
            self._before, self._start = self.seconds, time.monotonic()
        self._end, self._has_run = None, True
        ended = threading.Event()

        def note() -> None:
            while not ended.wait(EVERY_SECONDS):
                self._note()

        noting = threading.Thread(target=note, daemon=True)
        noting.start()
        try:
            yield
        finally:
            ended.set()
            noting.join()
            self._end = time.monotonic()
            self._note()

    def _note(self) -> None:
        with suppress(OSError):  # a full disk ends the search with the next result
            write_atomically(self._file, f"{self.seconds:.3f}\n")
