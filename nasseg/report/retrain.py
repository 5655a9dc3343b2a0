"""Reports on a retraining run: lines of progress, TensorBoard, metrics.json."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from typing_extensions import Self

from nasseg.graph import write_atomically
from nasseg.report.live import duration_text
from nasseg.report.tensorboard import TrainBoard
from nasseg.run_folder import METRICS_FILE, TENSORBOARD_FOLDER
from nasseg.train.fit import Stopped
from nasseg.train.metrics import Metrics
from nasseg.train.retrain import Retraining
from nasseg.train.trainer import Trainer

LINE_INTERVAL_S = 10.0


class RetrainReporter:
    """A reporter on a retraining run in its folder; `stop`, once set, ends the training after the current step."""

    def __init__(self, retraining: Retraining, stop: threading.Event) -> None:
        self._retraining, self._stop = retraining, stop
        self._board = TrainBoard(retraining.folder / TENSORBOARD_FOLDER)
        self._console = Console(stderr=True)
        self._start, self._first_step, self._printed = time.monotonic(), -1, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._board.close()

    def step(self, trainer: Trainer, loss: float, learning_rate: float) -> None:
        """Report a step; raises `Stopped` once the user has asked for it."""
        if self._first_step < 0:
            self._first_step, self._start = trainer.step, time.monotonic()
        self._board.add_step(trainer.step, loss, learning_rate)
        now = time.monotonic()
        if now - self._printed > LINE_INTERVAL_S:
            self._printed = now
            done = trainer.step - self._first_step
            left = (now - self._start) / done * (trainer.total_steps - trainer.step) if done else 0.0
            end = f", {duration_text(left)} to the end" if done else ""
            self._console.print(f"step {trainer.step}/{trainer.total_steps}, loss {loss:.4f}{end}", soft_wrap=True)
        if self._stop.is_set():
            raise Stopped

    def score(self, step: int, trainer: Trainer, metrics: Metrics) -> None:
        """Report a score on the validation split, and keep it as `metrics.json`."""
        classes = self._retraining.dataset.classes
        self._board.add_validation(step, metrics.miou, metrics.class_iou, classes)
        self._console.print(f"step {step}: mIoU {metrics.miou:.4f}", soft_wrap=True)
        write_atomically(self._retraining.folder / METRICS_FILE, metrics.model_dump_json(indent=1) + "\n")
