import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nasseg.data import Pace, open_dataset
from nasseg.report import retrain
from nasseg.report.retrain import RetrainReporter
from nasseg.train.fit import Stopped
from nasseg.train.metrics import Metrics
from nasseg.train.recipe import Recipe
from nasseg.train.retraining.config import RetrainConfig
from nasseg.train.retraining.history import History

DATASET = open_dataset("streets:size=32x64,train=6,val=8,test=2")
RECIPE = Recipe(steps=100, batch_size=2, crop=(32, 64))
CONFIG = RetrainConfig(
    data=DATASET.spec,
    train_split="train",
    val_split="val",
    weights=None,
    recipe=RECIPE,
    device="cpu",
    seed=0,
    validate_every=25,
)
PACE = Pace()
PACE.prepared(images=6, seconds=2.0, readers=1)


def reporter(
    folder: Path, stop: threading.Event | None = None, lines: list[str] | None = None, pace: Pace = PACE
) -> RetrainReporter:
    splits = {"dataset": DATASET, "val": DATASET.split("val")}
    retraining: Any = SimpleNamespace(folder=folder, config=CONFIG, pace=pace, **splits)
    return RetrainReporter(retraining, stop or threading.Event(), [].append if lines is None else lines.append)


def at(step: int) -> Any:
    return SimpleNamespace(step=step, total_steps=100)


def scores(miou: float = 0.375) -> Metrics:
    ious = (0.5, None, *(0.25 for _ in DATASET.classes[2:]))
    return Metrics.model_construct(miou=miou, class_iou=ious)


def test_steps_and_scores_are_on_the_board_and_the_last_score_in_a_file(tmp_path: Path) -> None:
    with reporter(tmp_path) as told:
        told.step(at(1), 2.5, 0.01)
        told.step(at(2), 2.25, 0.02)
        told.score(2, scores(), History().adding(2, 0.375))
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(1, 2.5), (2, 2.25)]
    assert [event.step for event in board.Scalars("val/mIoU")] == [2]
    assert f"val IoU by class/{DATASET.classes[0]}" in board.Tags()["scalars"]
    assert f"val IoU by class/{DATASET.classes[1]}" not in board.Tags()["scalars"]
    assert json.loads((tmp_path / "metrics.json").read_text())["miou"] == 0.375


def test_the_board_of_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    for steps in ((1, 2, 3), (2, 3, 4)):
        with reporter(tmp_path) as told:
            for step in steps:
                told.step(at(step), float(step), 0.01)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_lines_tell_the_time_to_the_end_with_the_validations_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, lines = [1000.0], list[str]()
    monkeypatch.setattr(retrain, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with reporter(tmp_path, lines=lines) as told:
        for step, seconds in ((21, 1000), (22, 1006), (23, 1012), (24, 1018), (25, 1024)):
            now[0] = seconds
            told.step(at(step), 1.5, 0.01)
        for images, seconds in ((0, 1024), (4, 1035)):
            now[0] = seconds
            told.validating(images)
        now[0] = 1044.0
        told.score(25, scores(), History().adding(25, 0.375))
        for step, seconds in ((26, 1052), (27, 1058)):
            now[0] = seconds
            told.step(at(step), 1.25, 0.01)
        told.score(50, scores(0.25), History().adding(25, 0.375).adding(50, 0.25))
    # A step takes 6 s, the validation of 8 images as long as 4/3 steps of 2 until one has ended, in 20 s.
    assert lines == [
        "step 21/100, loss 1.5000",
        "step 23/100, loss 1.5000, 0.333 images/s (input 3), 8 min 14 s to the end, 32 s of it validation",
        "step 25/100, loss 1.5000, 0.333 images/s (input 3), 7 min 54 s to the end, 24 s of it validation",
        "validation: 4/8 images of val",
        "step 25: mIoU 0.3750 (the best so far; validation took 20 s)",
        "step 26/100, loss 1.2500, 0.333 images/s (input 3), 8 min 24 s to the end, 1 min 00 s of it validation",
        "step 50: mIoU 0.2500 (best 0.3750 at step 25; validation took 0 s)",
    ]


def test_a_training_that_waits_for_data_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines, pace = [1000.0], list[str](), Pace()
    monkeypatch.setattr(retrain, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with reporter(tmp_path, lines=lines, pace=pace) as told:
        for step in (1, 2, 3):
            told.step(at(step), 1.5, 0.01)
            now[0] += 20
            pace.waited_s += 9
    waits = [line for line in lines if "waits for data" in line]
    assert waits == ["the training waits for data 45% of the time; more --readers (0 now) may help"]


def test_a_stop_breaks_off_between_two_steps_and_within_a_validation(tmp_path: Path) -> None:
    stop = threading.Event()
    with reporter(tmp_path, stop) as told:
        told.step(at(1), 1.0, 0.01)
        told.validating(0)
        stop.set()
        with pytest.raises(Stopped):
            told.step(at(2), 1.0, 0.01)
        with pytest.raises(Stopped):
            told.validating(4)
