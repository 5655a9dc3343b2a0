import os
import subprocess
import sys
from pathlib import Path

import pytest

from nasseg import threads

linux = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux")

GATHERED = """
import contextlib, os
from pathlib import Path
import torch
from nasseg import threads

torch.set_num_threads(2)
torch.manual_seed(0)
inputs, weights = torch.randn(8, 16, 32, 32), torch.randn(16, 16, 3, 3, requires_grad=True)
cores = os.sched_getaffinity(0)


def tasks():
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended since it was listed
            found[task.name] = os.sched_getaffinity(int(task.name))
    return found


def gradient():
    (found,) = torch.autograd.grad(torch.conv2d(inputs, weights, padding=1).square().mean(), weights)
    return found


spread, before = gradient(), tasks()
gathering = threads.Gathering(2, frozenset(cores))
gathering._gather(1)
during = tasks()
assert len(during) > len(before), "a team of idle threads is kept"
assert {tuple(during[task]) for task in before if task in during} == {tuple(gathering.on)}
assert len(gathering.on) == 1
assert torch.equal(gradient(), spread), "the sums stay the same"
gathering.spread()
after = tasks()
assert all(after[task] == cores for task in before if task in after)
assert gathering.on == cores
"""


@pytest.mark.parametrize(
    ("cores", "others", "free"), [(2, 0.0, 2), (2, 0.4, 2), (2, 0.6, 1), (2, 2.0, 1), (8, 2.9, 5), (1, 1.0, 1)]
)
def test_cores_are_free_that_others_use_less_than_half_of(cores: int, others: float, free: int) -> None:
    assert threads.free_cores(cores, others) == free


@pytest.mark.parametrize(
    ("count", "cores", "others", "on"),
    [
        (2, 2, 0.1, 2),
        (2, 2, 1.0, 1),  # both on one core
        (2, 4, 2.0, 4),  # there is room for both
        (8, 8, 1.0, 4),  # seven are free, but one of them would have two threads, and all would wait for it
        (8, 8, 6.0, 2),
        (8, 8, 8.0, 1),
    ],
)
def test_threads_gather_evenly_on_the_cores_that_are_free(count: int, cores: int, others: float, on: int) -> None:
    assert threads.cores_for(count, cores, others) == on


def test_the_users_own_settings_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    threads.limit_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == threads.SPINS
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    threads.limit_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    threads.limit_spinning()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads.choose_threads() is None


def test_child_processes_spin_as_briefly() -> None:
    environment = {k: v for k, v in os.environ.items() if k not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}
    child = "import os; print(os.environ['GOMP_SPINCOUNT'])"
    script = f"import nasseg, subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == threads.SPINS


@linux
@pytest.mark.parametrize(
    ("count", "environment", "gathers"),
    [
        (2, {}, True),
        (2, {"GOMP_SPINCOUNT": threads.SPINS}, True),
        (1, {}, False),
        (2, {"GOMP_SPINCOUNT": "0"}, False),
        (2, {"OMP_WAIT_POLICY": "active"}, False),
        (2, {"OMP_PROC_BIND": "true"}, False),
    ],
)
def test_threads_gather_unless_the_user_says_how_they_run(
    count: int, environment: dict[str, str], gathers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_libgomp", lambda: object())
    assert threads.can_gather(count, environment) is gathers
    monkeypatch.setattr(threads, "_libgomp", lambda: None)
    assert not threads.can_gather(count, environment)


@linux
def test_as_many_threads_start_as_cores_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "WINDOW_S", 0.0)
    monkeypatch.setattr(threads, "_own_cores", lambda: frozenset(range(4)))
    monkeypatch.setattr(threads.CoreUse, "others", lambda self: 2.8)
    assert threads.choose_threads() == 1


@linux
def test_use_is_told_by_core_and_without_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, own, tick = [10.0], [1.0], os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(threads.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(threads.time, "process_time", lambda: own[0])
    monkeypatch.setattr(threads, "_STAT", tmp_path / "stat")

    def worked(*seconds: float) -> None:
        lines = [f"cpu{core} {int(s * tick)} 0 0 500 9 0 0 77" for core, s in enumerate(seconds)]
        (tmp_path / "stat").write_text("\n".join(["cpu 1 2 3 4 5 6 7 8", *lines, "intr 5"]))

    worked(5, 5, 5)
    use = threads.CoreUse(frozenset({0, 1}))
    worked(7, 6, 9)
    clock[0], own[0] = 12.0, 2.0
    assert use.shares() == {0: 1.0, 1: 0.5}
    assert (use.own(), use.others()) == (0.5, 1.0)


@linux
@pytest.mark.skipif(len(threads._own_cores()) < 2, reason="needs two cores")
def test_gathered_threads_give_the_same_gradient_and_are_spread_again() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", GATHERED], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


class Beside:
    """Other programs as a test likes them, on two cores."""

    loads = (0.0, 0.0)
    seconds = 1.0

    def __init__(self, cores: frozenset[int]) -> None:
        self.cores = cores

    def shares(self) -> dict[int, float]:
        return dict(enumerate(self.loads))

    def own(self) -> float:
        return 0.0

    def others(self) -> float:
        return sum(self.loads)


@linux
def test_threads_gather_on_the_free_core_and_spread_when_the_others_end(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[frozenset[int]] = []
    monkeypatch.setattr(threads, "CoreUse", Beside)
    monkeypatch.setattr(threads, "_libgomp", lambda: None)
    monkeypatch.setattr(threads._BriefWaits, "begin", lambda self, threads, cores: None)
    monkeypatch.setattr(threads, "_set_affinity", lambda task, cores: moves.append(cores))
    monkeypatch.setattr(threads, "_own_cores", lambda: frozenset({0, 1}))
    monkeypatch.setattr(threads, "can_gather", lambda count, environment: True)
    with threads.sharing_cores(2) as look:
        look()
        assert not moves
        Beside.loads = (0.9, 0.1)
        look()
        assert set(moves) == {frozenset({1})}
        with threads.sharing_cores(2) as inner:
            assert inner == look
        assert set(moves) == {frozenset({1})}, "an inner block does not end the outer one's"
        Beside.loads = (0.0, 0.1)
        moves.clear()
        look()
        assert set(moves) == {frozenset({0, 1})}
        Beside.loads = (0.9, 0.1)
        look()
        moves.clear()
    assert set(moves) == {frozenset({0, 1})}, "the block's end spreads them"
