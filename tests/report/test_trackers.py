"""Trackers against stand-ins for their packages, which keep what they are told."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from nasseg.report.trackers import TRACKERS, check_tracker

CLASSES = ("road", "car (parked)", "sky")


class FakeWandb(ModuleType):
    def __init__(self) -> None:
        super().__init__("wandb")
        self.begun: list[dict[str, Any]] = []
        self.logged: list[dict[str, float]] = []
        self.axes: list[tuple[str, Any]] = []
        self.finished = 0

    def init(self, **options: Any) -> Any:
        self.begun.append(options)
        return SimpleNamespace(
            log=self.logged.append,
            define_metric=lambda name, step_metric=None: self.axes.append((name, step_metric)),
            finish=self.finish,
        )

    def finish(self) -> None:
        self.finished += 1


class FakeMLflow(ModuleType):
    def __init__(self) -> None:
        super().__init__("mlflow")
        self.runs: dict[str, dict[str, str]] = {}
        self.params: list[dict[str, object]] = []
        self.logged: list[tuple[dict[str, float], int]] = []
        self.continued: list[str] = []

    def set_experiment(self, name: str) -> None:
        assert name == "nasseg"

    def search_runs(self, experiment_names: list[str], filter_string: str, output_format: str) -> list[Any]:
        wanted = {f"tags.`{tag}` = '{value}'": run for run, tags in self.runs.items() for tag, value in tags.items()}
        found = [wanted[filter_string]] if filter_string in wanted else []
        return [SimpleNamespace(info=SimpleNamespace(run_id=run)) for run in found]

    def start_run(self, run_id: str | None = None, run_name: str = "", tags: dict[str, str] | None = None) -> None:
        if run_id is not None:
            self.continued.append(run_id)
        else:
            self.runs[run_name] = tags or {}

    def log_params(self, params: dict[str, object]) -> None:
        self.params.append(params)

    def log_metrics(self, values: dict[str, float], step: int, synchronous: bool) -> None:
        assert not synchronous
        self.logged.append((values, step))

    def flush_async_logging(self) -> None: ...

    def end_run(self) -> None: ...


def tell(name: str, folder: Path) -> None:
    tracker = TRACKERS[name](folder, {"seed": 3})
    tracker.add_step(1, 2.5, 0.01)
    tracker.add_validation(2, 0.5, (0.25, 0.75, None), CLASSES)
    tracker.close()


def test_weights_and_biases_gets_everything_in_one_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for _ in range(2):
        tell("wandb", tmp_path)
    assert fake.logged[:2] == [
        {"step": 1, "train/loss": 2.5, "train/learning rate": 0.01},
        {"step": 2, "val/mIoU": 0.5, "val IoU by class/road": 0.25, "val IoU by class/car (parked)": 0.75},
    ]
    assert ("*", "step") in fake.axes
    first, again = fake.begun
    assert first == again
    assert (first["project"], first["name"], first["resume"], first["config"]) == (
        *("nasseg", tmp_path.name, "allow"),
        {"seed": 3},
    )
    assert fake.finished == 2


def test_mlflow_gets_everything_in_one_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    for _ in range(2):
        tell("mlflow", tmp_path)
    assert fake.logged[:2] == [
        ({"train/loss": 2.5, "train/learning rate": 0.01}, 1),
        ({"val/mIoU": 0.5, "val IoU by class/road": 0.25, "val IoU by class/car _parked_": 0.75}, 2),
    ]
    assert (fake.params, fake.continued) == ([{"seed": 3}], [tmp_path.name])


def test_an_unknown_tracker_and_a_missing_package_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="log is 'comet', but must be one of wandb, mlflow"):
        check_tracker("comet")
    monkeypatch.setattr("nasseg.report.trackers.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"log wandb needs the package wandb; pip install nasseg\[wandb\]"):
        check_tracker("wandb")
