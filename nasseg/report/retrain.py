"""Reports on a retraining run: lines of progress, TensorBoard, metrics.json."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from typing_extensions import Self

from nasseg.graph import write_atomically
from nasseg.jobs.runners.dispatch import StopEvent
from nasseg.report.live import duration_text
from nasseg.report.tensorboard import TrainBoard, flat_choice
from nasseg.report.trackers import TRACKERS, Tracker
from nasseg.run_folder import METRICS_FILE, TENSORBOARD_FOLDER
from nasseg.train.fit import Stopped
from nasseg.train.metrics import Metrics
from nasseg.train.retrain import Retraining
from nasseg.train.retraining.history import History
from nasseg.train.trainer import Trainer

LINE_INTERVAL_S = 10.0
MOST_WAITING = 0.2
"""Of the time of the steps, for their images, before the user is told."""
PASSES_IN_A_STEP = 3
"""Forward passes that a training step takes as long as: its own, and a backward one of about two."""


class RetrainReporter:
    """A reporter on a retraining run in its folder; `stop`, once set, ends the training after the current step.

    `say` takes the lines for people.
    """

    def __init__(self, retraining: Retraining, stop: StopEvent, say: Callable[[str], object]) -> None:
        self._retraining, self._stop, self._say = retraining, stop, say
        self._boards: list[TrainBoard | Tracker] = []
        self._clock = _Clock(_relative_cost(retraining))
        self._printed, self._warned = 0.0, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for board in self._boards:
            board.close()

    def step(self, trainer: Trainer, loss: float, learning_rate: float) -> None:
        """Report a step; raises `Stopped` once the user has asked for it."""
        self._clock.stepped()
        for board in self._boards_from(trainer.step):
            board.add_step(trainer.step, loss, learning_rate)
        if self._is_time_for_a_line():
            rates, end = self._rates(), self._end(trainer.step)
            self._say(f"step {trainer.step}/{trainer.total_steps}, loss {loss:.4f}{rates}{end}")
            self._warn_of_waiting()
        self._stop_if_asked()

    def validating(self, images: int) -> None:
        """Report the images scored so far; raises `Stopped` once the user has asked for it."""
        self._clock.validates()
        if images and self._is_time_for_a_line():
            config, of = self._retraining.config, len(self._retraining.val)
            self._say(f"validation: {images}/{of} images of {config.val_split}")
        self._stop_if_asked()

    def score(self, step: int, metrics: Metrics, history: History) -> None:
        """Report a score on the validation split, and keep it as `metrics.json`."""
        seconds = self._clock.validated()
        classes = self._retraining.dataset.classes
        for board in self._boards_from(step):
            board.add_validation(step, metrics.miou, metrics.class_iou, classes)
        best = history.best
        rank = "the best so far" if best is None or best.step == step else f"best {best.miou:.4f} at step {best.step}"
        self._say(f"step {step}: mIoU {metrics.miou:.4f} ({rank}; validation took {duration_text(seconds)})")
        write_atomically(self._retraining.folder / METRICS_FILE, metrics.model_dump_json(indent=1) + "\n")

    def _boards_from(self, step: int) -> list[TrainBoard | Tracker]:
        """Open the boards at the first step of this process, which may repeat steps of one that was killed."""
        if not self._boards:
            folder, config = self._retraining.folder, self._retraining.config
            self._boards.append(TrainBoard(folder / TENSORBOARD_FOLDER, step))
            if config.log is not None:
                self._boards.append(TRACKERS[config.log](folder, flat_choice(config.model_dump(mode="json"))))
        return self._boards

    def _end(self, step: int) -> str:
        """Tell the time to the end, and the share of the validations in it."""
        config = self._retraining.config
        if self._clock.step_s is None:
            return ""
        validation_s = config.validations_after(step) * self._clock.validation_s
        total = (config.recipe.steps - step) * self._clock.step_s + validation_s
        return f", {duration_text(total)} to the end, {duration_text(validation_s)} of it validation"

    def _rates(self) -> str:
        """Tell how fast steps are taken, and how fast their images could be."""
        if self._clock.step_s is None:
            return ""
        batch = self._retraining.config.recipe.batch_size
        workers, pace = self._retraining.config.workers, self._retraining.pace
        return f", {batch / self._clock.step_s:.3g} images/s (input {pace.images_per_s * workers:.3g})"

    def _warn_of_waiting(self) -> None:
        """Say, once, that steps wait for their images for a large part of the time."""
        trained, waited = self._clock.steps_s, self._retraining.pace.waited_s
        share = waited / trained if trained else 0.0
        if share > MOST_WAITING and not self._warned:
            self._warned = True
            readers = self._retraining.config.readers
            self._say(f"the training waits for data {share:.0%} of the time; more --readers ({readers} now) may help")

    def _is_time_for_a_line(self) -> bool:
        now = time.monotonic()
        due = now - self._printed > LINE_INTERVAL_S
        if due:
            self._printed = now
        return due

    def _stop_if_asked(self) -> None:
        if self._stop.is_set():
            raise Stopped


class _Clock:
    """The time that steps and validations take; a validation's is estimated from the steps' until one has ended."""

    def __init__(self, validation_in_steps: float) -> None:
        self._validation_in_steps = validation_in_steps
        self._latest: float | None = None
        self._validation_start: float | None = None
        self._steps, self.steps_s = 0, 0.0
        self._measured_validation_s: float | None = None

    def stepped(self) -> None:
        """Take the time of a step; the first one after a validation or a start does not count."""
        now = time.monotonic()
        if self._latest is not None:
            self._steps += 1
            self.steps_s += now - self._latest
        self._latest = now

    def validates(self) -> None:
        """Begin to time a validation, unless it has begun."""
        if self._validation_start is None:
            self._validation_start, self._latest = time.monotonic(), None

    def validated(self) -> float:
        """Return the seconds that the validation took."""
        now = time.monotonic()
        self._measured_validation_s = now - (now if self._validation_start is None else self._validation_start)
        self._validation_start = None
        return self._measured_validation_s

    @property
    def step_s(self) -> float | None:
        """Seconds a step, `None` before the second one."""
        return self.steps_s / self._steps if self._steps else None

    @property
    def validation_s(self) -> float:
        """Seconds that the next validation will take, as far as is known."""
        if self._measured_validation_s is not None:
            return self._measured_validation_s
        return self._validation_in_steps * (self.step_s or 0.0)


def _relative_cost(retraining: Retraining) -> float:
    """Estimate how many steps a validation takes as long as, from the pixels of both."""
    recipe = retraining.config.recipe
    height, width = retraining.val.typical_size()
    step_pixels = recipe.batch_size * recipe.crop[0] * recipe.crop[1]
    return len(retraining.val) * height * width / step_pixels / PASSES_IN_A_STEP
