"""TensorBoard logs of searches and training runs.

A search writes the runs `search/best` and `search/baseline` (one chart of both), and one run in `trials/` for each of
its best candidates: TensorBoard reads a file for each run. They use the same few tags, so they are lines of a few
charts, and rows of one table in the HParams view. A search by gradient also writes one run per seed in `relaxation/`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from typing_extensions import Self

from nasseg.report.figures.architecture import draw
from nasseg.report.figures.figure import to_pixels
from nasseg.report.figures.front import front_figure
from nasseg.report.figures.pictures import Example, Palette, panel
from nasseg.report.figures.weighted_graph import draw_weights
from nasseg.report.rows import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nasseg.graph import Architecture
    from nasseg.space.weighted_graph import WeightedGraph
    from nasseg.train.relaxation.trainer import RelaxationSnapshot


class _Board:
    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write out what is pending."""
        self._writer.close()

    def add_predictions(self, examples: Sequence[Example], palette: Palette, step: int) -> None:
        """Show a panel of image, truth and prediction; give the same images each time."""
        self._add_figure("predictions", panel(examples, palette), step)

    def _add_figure(self, tag: str, figure: Figure, step: int) -> None:
        self._writer.add_image(tag, to_pixels(figure), step, dataformats="HWC")
        self._writer.flush()


class SearchBoard(_Board):
    """The TensorBoard of one search.

    `folder` is the run's `tensorboard/`. The trials logged by an earlier part of a resumed search are removed: add
    their rows again, from the study.
    """

    def __init__(self, folder: str | Path) -> None:
        self._trials = Path(folder) / "trials"
        shutil.rmtree(self._trials, ignore_errors=True)
        super().__init__(Path(folder) / "search" / "best")
        self._baseline = SummaryWriter(str(Path(folder) / "search" / "baseline"))
        self._written: dict[str, Row] = {}

    def close(self) -> None:
        """Write out what is pending."""
        super().close()
        self._baseline.close()

    def show_trials(self, rows: Iterable[Row]) -> None:
        """Show these trials and no others: mIoU by training step and end to end, costs, score, and the choice.

        Only what is new is written.
        """
        shown = {row.key: row for row in rows if row.status != "running"}
        for key in self._written.keys() - shown.keys():
            shutil.rmtree(self._trials / self._written.pop(key).name)
        for key, row in shown.items():
            before = self._written.get(key)
            if row != before:
                self._add_trial(row, before)
                self._written[key] = row

    def _add_trial(self, row: Row, before: Row | None) -> None:
        # Opened for each update: hundreds of open files and writer threads would be too many.
        with SummaryWriter(str(self._trials / row.name)) as writer:
            if before is None:
                # Without the "experiment" record TensorBoard takes the table's columns from all trials, not from one.
                _, start, _ = hparams({"candidate": row.name, **flat_choice(row.choice)}, {})
                writer.file_writer.add_summary(start)
            known = set() if before is None else _scalars(before)
            for tag, value, step in sorted(_scalars(row) - known):
                writer.add_scalar(tag, value, step)

    def add_best(self, score: float | None, baseline: float | None, spent: int) -> None:
        """Log the best score and the baseline's after `spent` seconds (or trials) of the budget."""
        if score is not None:
            self._writer.add_scalar("best/score against budget spent", score, spent)
        if baseline is not None:
            self._baseline.add_scalar("best/score against budget spent", baseline, spent)
        self._writer.flush()
        self._baseline.flush()

    def add_front(self, rows: Sequence[Row], step: int) -> None:
        """Show mIoU against cost, with the references marked."""
        self._add_figure("best/mIoU against cost", front_figure(rows), step)

    def add_best_network(
        self, architecture: Architecture, place: str | None, graphs: Sequence[WeightedGraph], step: int
    ) -> None:
        """Show drawings of the best architecture: its `place`, and further `graphs` of it."""
        self._add_figure("best/cell", draw(architecture, place), step)
        for graph in graphs:
            self._add_figure(f"best/{graph.name}", draw_weights(graph), step)


class TrainBoard(_Board):
    """The TensorBoard of one training run from `step` on; hides what `folder` already holds of that and later steps."""

    def __init__(self, folder: str | Path, step: int = 0) -> None:
        super().__init__(Path(folder), purge_step=step or None)

    def add_step(self, step: int, loss: float, learning_rate: float) -> None:
        """Log the loss and the learning rate at a training step."""
        self._writer.add_scalar("train/loss", loss, step)
        self._writer.add_scalar("train/learning rate", learning_rate, step)

    def add_validation(self, step: int, miou: float, class_iou: Sequence[float | None], classes: Sequence[str]) -> None:
        """Log scores on the validation split; classes in neither truth nor prediction are left out."""
        self._writer.add_scalar("val/mIoU", miou, step)
        for name, iou in zip(classes, class_iou, strict=True):
            if iou is not None:
                self._writer.add_scalar(f"val IoU by class/{name}", iou, step)
        self._writer.flush()


class RelaxationBoard(_Board):
    """The TensorBoard of one relaxation from `step` on; hides what `folder` already holds of that and later steps."""

    def __init__(self, folder: str | Path, step: int) -> None:
        super().__init__(Path(folder), purge_step=step)

    def add_snapshot(self, snapshot: RelaxationSnapshot) -> None:
        """Log the losses on both halves of the images, and the expected cost."""
        values = {
            "loss, weights": snapshot.train_loss,
            "loss, architecture": snapshot.architecture_loss,
            "expected cost": snapshot.expected_cost,
        }
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(f"relaxation/{name}", value, snapshot.step)
        self._writer.flush()

    def add_figures(self, figures: Mapping[str, Figure], step: int) -> None:
        """Show the drawings of its mixtures, by name."""
        for name, figure in figures.items():
            self._add_figure(f"relaxation/{name}", figure, step)


def _scalars(row: Row) -> set[tuple[str, float, int]]:
    """Collect everything known of a trial, as (tag, value, step)."""
    scalars = {(f"mIoU/{row.rung_runs}", miou, step) for step, miou in row.proxy.items()}
    single = {
        ("mIoU/end to end, mean over seeds", row.full_miou, len(row.full)),
        ("mIoU/end to end, mean over fresh seeds", row.fresh_miou, len(row.fresh)),
        ("score", row.score, len(row.proxy) + len(row.full)),
        ("trial cost/MAdds (G)", None if row.madds is None else row.madds / 1e9, 0),
        ("trial cost/parameters (M)", None if row.params is None else row.params / 1e6, 0),
        ("trial cost/latency (ms)", row.latency_ms, 0),
    }
    return scalars | {(tag, value, step) for tag, value, step in single if value is not None}


def flat_choice(choice: Mapping[str, object]) -> dict[str, str | float]:
    """Flatten a choice: `{"branches": [{"op": "atrous", "rate": [6, 3]}]}` → `branches.0.rate: 6x3`."""
    flat: dict[str, str | float] = {}

    def visit(name: str, value: object) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                visit(f"{name}.{key}" if name else str(key), inner)
        elif isinstance(value, (list, tuple)) and value and all(isinstance(v, (int, float)) for v in value):
            flat[name] = "x".join(f"{v:g}" for v in value)
        elif isinstance(value, (list, tuple)):
            for index, inner in enumerate(value):
                visit(f"{name}.{index}", inner)
        elif value is not None:
            flat[name] = value if isinstance(value, (int, float, str)) else str(value)

    visit("", choice)
    return flat
