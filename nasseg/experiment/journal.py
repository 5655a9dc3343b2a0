"""The journal file of a search's record, in Optuna's format, read within limits, as it may be someone else's."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from nasseg.foreign import MAX_LINE_BYTES, DamagedError, parse_json

FROM_A_COPY = "restore the record from a copy"


class Journal(JournalFileBackend):
    """A journal that, before its first write, cuts off the unfinished line that a killed process left.

    Trials read from it lack their parameters, which are for other readers of the file: they would take a third of
    a trial's memory, and time.
    """

    _is_whole = False
    _read = (0, 0)
    """Lines given to Optuna, and where the next one begins."""
    _held: list[dict[str, Any]] | None = None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write entries, or keep them until the block of `at_once` ends."""
        if self._held is not None:
            self._held += logs
            return
        if not self._is_whole:
            _cut_unfinished_line(Path(self._file_path))
            self._is_whole = True
        super().append_logs(logs)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the whole lines from this number on: Optuna asks for what follows the last it was given, or for all."""
        number, place = self._read if log_number_from == self._read[0] else (0, 0)
        with open(self._file_path, "rb") as journal:
            journal.seek(place)
            while (line := journal.readline(MAX_LINE_BYTES + 1)).endswith(b"\n"):
                number, place = number + 1, place + len(line)
                if number > log_number_from:
                    self._read = number, place
                    yield self._log(line, number)
        if len(line) > MAX_LINE_BYTES:
            raise DamagedError(
                f"{self._file_path} line {number + 1} has over {MAX_LINE_BYTES:,} bytes, the most read; {FROM_A_COPY}"
            )

    def _log(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            log = parse_json(line)
        except ValueError as error:
            raise DamagedError(f"{self._file_path} line {number} {error}; {FROM_A_COPY}") from None
        if not isinstance(log, dict):
            raise DamagedError(f"{self._file_path} line {number} is no entry of a record; {FROM_A_COPY}")
        log.pop("params", None)
        log.pop("distributions", None)
        return log

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Write everything that the block logs in one go; a disk takes about as long for one write as for all."""
        self._held = []
        try:
            yield
        finally:
            logs, self._held = self._held, None
            if logs:  # Optuna would write an empty line
                self.append_logs(logs)


def _cut_unfinished_line(path: Path) -> None:
    """Cut off anything after the last line break; Optuna would append to it and then fail to read the journal."""
    with path.open("rb+") as journal:
        content = journal.read()
        journal.truncate(content.rfind(b"\n") + 1)
