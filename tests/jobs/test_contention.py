"""How many times longer steps take beside other jobs, with real ones."""

import subprocess
from typing import Any

import pytest
import torch

from nasseg.jobs import contention
from nasseg.jobs.contention import measure_contention
from tests.jobs.tiny import TinySpace

CPU = torch.device("cpu")
NETWORK = TinySpace().architecture(next(iter(TinySpace().references().values())), 3)


def test_one_job_meets_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contention, "_running", lambda command: pytest.fail("it started another"))
    assert measure_contention(NETWORK, (32, 32), CPU, 1, 1) == 1


def test_others_train_meanwhile_and_are_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    seconds = iter([2.0, 3.0])
    monkeypatch.setattr(contention, "step_seconds", lambda trainer, batches: next(seconds))
    assert measure_contention(NETWORK, (32, 32), CPU, 1, 3) == 1.5
    assert len(started) == 2
    assert all(process.returncode == -9 for process in started)


def test_a_job_that_cannot_train_beside_others_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contention, "__name__", "nasseg.no_such_module")
    with pytest.raises(ValueError, match="one of 2 jobs on cpu fails beside the others; lower --concurrency"):
        measure_contention(NETWORK, (32, 32), CPU, 1, 2)
