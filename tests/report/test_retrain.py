import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nasseg.data import open_dataset
from nasseg.report import retrain
from nasseg.report.retrain import RetrainReporter
from nasseg.train.fit import Stopped
from nasseg.train.metrics import Metrics

DATASET = open_dataset("streets")


def reporter(folder: Path, stop: threading.Event | None = None) -> RetrainReporter:
    retraining: Any = SimpleNamespace(folder=folder, dataset=DATASET)
    return RetrainReporter(retraining, stop or threading.Event())


def at(step: int) -> Any:
    return SimpleNamespace(step=step, total_steps=100)


def test_steps_and_scores_are_on_the_board_and_the_last_score_in_a_file(tmp_path: Path) -> None:
    ious = (0.5, None, *(0.25 for _ in DATASET.classes[2:]))
    metrics = Metrics.model_construct(miou=0.375, class_iou=ious)
    with reporter(tmp_path) as told:
        told.step(at(1), 2.5, 0.01)
        told.step(at(2), 2.25, 0.02)
        told.score(2, at(2), metrics)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(1, 2.5), (2, 2.25)]
    assert [event.step for event in board.Scalars("val/mIoU")] == [2]
    assert f"val IoU by class/{DATASET.classes[0]}" in board.Tags()["scalars"]
    assert f"val IoU by class/{DATASET.classes[1]}" not in board.Tags()["scalars"]
    assert json.loads((tmp_path / "metrics.json").read_text())["miou"] == 0.375


def test_a_line_now_and_then_tells_the_time_to_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(retrain, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with reporter(tmp_path) as told:
        for step, seconds in ((11, 1000), (12, 1005), (13, 1011), (14, 1012)):
            now[0] = seconds
            told.step(at(step), 1.5, 0.01)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["step 11/100, loss 1.5000", "step 13/100, loss 1.5000, 7 min 58 s to the end"]


def test_a_stop_breaks_off_between_two_steps(tmp_path: Path) -> None:
    stop = threading.Event()
    with reporter(tmp_path, stop) as told:
        told.step(at(1), 1.0, 0.01)
        stop.set()
        with pytest.raises(Stopped):
            told.step(at(2), 1.0, 0.01)
