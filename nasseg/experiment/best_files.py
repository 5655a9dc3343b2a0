"""The files of the best networks in a run folder: `best.json` and `pareto/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from nasseg.experiment.results import Results
from nasseg.graph import Architecture, save
from nasseg.planning.candidates import Trial
from nasseg.run_folder import BEST_FILE, FRONT_FOLDER


class BestFiles:
    """The files of a run `folder`, of which only those that have changed are written again.

    `architecture` builds the network of a candidate, with its origin and scores.
    """

    def __init__(self, folder: Path, architecture: Callable[[Trial], Architecture]) -> None:
        self._folder, self._architecture = folder, architecture
        self._written: Mapping[Path, object] = {}

    def write(self, results: Results) -> None:
        """Write the files of the best candidate and of the front, if there are any, and remove those of others."""
        best = results.best
        if best is None:
            return
        folder = self._folder / FRONT_FOLDER
        shown = {folder / f"{trial.candidate.label or trial.key}.json": trial for trial in results.front}
        shown[self._folder / BEST_FILE] = best
        contents = {path: (t.key, len(t.proxy), len(t.full), t.key in results.latencies) for path, t in shown.items()}
        if contents == self._written:
            return
        folder.mkdir(exist_ok=True)
        for path, trial in shown.items():
            if self._written.get(path) != contents[path]:
                save(self._architecture(trial), path)
        for stale in set(folder.glob("*.json")) - set(shown):
            stale.unlink()
        self._written = contents
