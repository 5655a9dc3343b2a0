"""The rows of a search, kept up to date while it runs."""

from __future__ import annotations

from nasseg.experiment.experiment import Experiment
from nasseg.experiment.results import Results
from nasseg.planning.candidates import Trial
from nasseg.report.rows import Row, make_row


class KeptRows:
    """One row per candidate of a search with an outcome, made anew only where something changed.

    `catch_up` belongs to the thread that runs the search. `rows` may be read in any, as rows do not change.
    """

    def __init__(self, search: Experiment) -> None:
        self._search = search
        self._results: Results | None = None
        self._seen = 0
        self._references: list[str] = []
        self._known: dict[str, tuple[int, int, bool]] = {}
        """What each row depends on."""
        self._rows: dict[str, tuple[int, Row]] = {}

    def catch_up(self) -> list[Trial]:
        """Take in what is new, and return the trials that may have changed, each as often as it did."""
        search, results = self._search, self._search.results
        if results is not self._results:
            self._results, self._seen = results, 0
        changed = results.changes[self._seen :]
        for trial in changed:
            known = len(trial.proxy), len(trial.full), trial.key in search.latencies
            if self._known.get(trial.key) != known:
                score, latency = results.score(trial), search.latencies.get(trial.key)
                row = make_row(trial, search.plan.rungs[-1], score, latency, search.rung_runs, results.by_measurement)
                self._known[trial.key] = known
                self._rows[trial.key] = trial.number, row
        self._seen += len(changed)
        self._references = [trial.key for trial in results.references.values()]
        return changed

    @property
    def baseline(self) -> Row | None:
        """The handcrafted reference to beat."""
        return self._rows[self._references[0]][1] if self._references else None

    @property
    def rows(self) -> list[Row]:
        """The references, the baseline first, then the others in the order they were proposed."""
        first = [self._rows[key][1] for key in self._references]
        others = [(number, row) for number, row in list(self._rows.values()) if row.label is None]
        return first + [row for _, row in sorted(others, key=lambda one: one[0])]
