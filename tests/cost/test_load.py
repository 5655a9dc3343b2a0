import os
from pathlib import Path

import pytest
import torch

from nasseg.cost import load
from nasseg.cost.load import OthersLoad

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds that pass (`wall`), that this process works (`own`) and that all cores work (`worked`), on 4 cores."""
    seconds = {"wall": 0.0, "own": 0.0, "worked": 0.0}
    tick = os.sysconf("SC_CLK_TCK")

    class Stat:
        def exists(self) -> bool:
            return True

        def read_text(self) -> str:
            return f"cpu  {int(seconds['worked'] * tick)} 0 0 {10 * tick} {5 * tick} 0 0 0 0 0\ncpu0 9 9 9 9 9 9 9 9\n"

    monkeypatch.setattr(load, "_STAT", Stat())
    monkeypatch.setattr(load.time, "perf_counter", lambda: seconds["wall"])
    monkeypatch.setattr(load.time, "process_time", lambda: seconds["own"])
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    return seconds


def test_ones_own_work_is_no_load(machine: dict[str, float]) -> None:
    watch = OthersLoad(CPU)
    machine.update({"wall": 10.0, "own": 20.0, "worked": 20.0})
    assert watch.share == 0


def test_the_share_is_of_all_cores(machine: dict[str, float]) -> None:
    watch = OthersLoad(CPU)
    machine.update({"wall": 10.0, "own": 10.0, "worked": 24.0})
    assert watch.share == pytest.approx(14 / 40)


def test_where_there_is_no_count_it_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(load, "_STAT", tmp_path / "none")
    assert OthersLoad(CPU).share is None


def test_of_a_gpu_it_is_its_utilisation_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([40, 100])
    monkeypatch.setattr(torch.cuda, "utilization", lambda _: next(readings))
    assert OthersLoad(CUDA).share == 0.4


def test_a_gpu_that_cannot_tell_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: torch.device) -> int:
        raise ModuleNotFoundError("pynvml is not installed")

    monkeypatch.setattr(torch.cuda, "utilization", missing)
    assert OthersLoad(CUDA).share is None


def test_here_it_is_a_share() -> None:
    share = OthersLoad(CPU).share
    assert share is None or 0 <= share <= 1
