"""Live display of the relaxations of a search by gradient."""

from __future__ import annotations

import math
import time
from pathlib import Path

from matplotlib.figure import Figure
from pydantic import ValidationError

from nasseg.errors import one_line
from nasseg.foreign import read_json
from nasseg.report.figures.figure import FORMATS, save
from nasseg.report.figures.weighted_graph import draw_weights
from nasseg.report.tensorboard import RelaxationBoard
from nasseg.run_folder import RELAXATION_FOLDER, TENSORBOARD_FOLDER
from nasseg.train.relaxation.trainer import RelaxationSnapshot

DRAW_EVERY_SECONDS = 30.0


class RelaxationReporter:
    """A reporter on the relaxations of the search in `folder` during their training.

    Numbers and pictures of their snapshots go to TensorBoard; the pictures also beside the snapshots, as PNG and SVG.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        snapshots(folder)  # one that is off is told before a search goes on, not by its thread that draws
        self._boards: dict[int, RelaxationBoard] = {}
        self._shown: dict[int, int] = {}
        self._drawn: dict[int, int] = {}
        self._last_drawing = -math.inf

    def update(self, draw_all: bool = False) -> None:
        """Show what is new: the numbers at once, the pictures when they are due or with `draw_all`."""
        found = snapshots(self._folder)
        for snapshot in found:
            if snapshot.step != self._shown.get(snapshot.seed):
                self._board(snapshot).add_snapshot(snapshot)
                self._shown[snapshot.seed] = snapshot.step
        undrawn = [snapshot for snapshot in found if snapshot.step != self._drawn.get(snapshot.seed)]
        if undrawn and (draw_all or time.monotonic() - self._last_drawing > DRAW_EVERY_SECONDS):
            for snapshot in undrawn:
                self._draw(snapshot)
            self._last_drawing = time.monotonic()

    def close(self) -> None:
        """Show the last state of each relaxation, and write out what is pending."""
        self.update(draw_all=True)
        for board in self._boards.values():
            board.close()

    def _board(self, snapshot: RelaxationSnapshot) -> RelaxationBoard:
        """Return the relaxation's board; a new one if training went back to a checkpoint."""
        seed, step = snapshot.seed, snapshot.step
        if seed in self._boards and step < self._shown[seed]:
            self._boards.pop(seed).close()
        if seed not in self._boards:
            self._boards[seed] = RelaxationBoard(
                self._folder / TENSORBOARD_FOLDER / RELAXATION_FOLDER / f"seed{seed}", step
            )
        return self._boards[seed]

    def _draw(self, snapshot: RelaxationSnapshot) -> None:
        figures = draw_snapshot(snapshot)
        for name, figure in figures.items():
            for suffix in FORMATS:
                save(figure, self._folder / RELAXATION_FOLDER / f"{name}-seed{snapshot.seed}{suffix}")
        self._boards[snapshot.seed].add_figures(figures, snapshot.step)
        self._drawn[snapshot.seed] = snapshot.step


def snapshots(folder: str | Path) -> list[RelaxationSnapshot]:
    """Read the last snapshot of each relaxation in a run folder; raises `ValueError` for a file that is off."""
    files = (Path(folder) / RELAXATION_FOLDER).glob("seed*.json")
    return sorted(map(_snapshot, files), key=lambda snapshot: snapshot.seed)


def _snapshot(file: Path) -> RelaxationSnapshot:
    try:
        return RelaxationSnapshot.model_validate(read_json(file, "remove it"))
    except ValidationError as error:
        raise ValueError(one_line(error, str(file))) from None


def draw_snapshot(snapshot: RelaxationSnapshot) -> dict[str, Figure]:
    """Draw each graph, by the graph's name."""
    note = f"seed {snapshot.seed}, step {snapshot.step:,} of {snapshot.steps:,}"
    return {graph.name: draw_weights(graph, note) for graph in snapshot.graphs}
