import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from nasseg.cost import profile as engine
from nasseg.cost.latency_table import LatencyTable
from nasseg.cost.profile import PASSES, partial_file
from nasseg.cost.timing import Timing
from nasseg.experiment.begin import begin
from nasseg.experiment.machine_table import SILENT, cache_folder, profile_seconds, table_of_this_machine
from nasseg.jobs.context import Problem
from nasseg.planning.budget import Budget
from nasseg.planning.machine import Hardware
from nasseg.planning.options import SearchOptions
from nasseg.run_folder import LATENCY_TABLE_FILE
from tests.jobs.tiny import DATA, SPACE

HARDWARE = Hardware(device="cpu", cores=4, gpus=0, workers=4, threads=1)
ASKED: dict[str, Any] = {"space": SPACE, "data": DATA, "device": "cpu", "target_latency": "1s", "concurrency": 1}


class Heard:
    """A watcher that notes what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shown: set[str] = set()

    def say(self, message: str) -> None:
        self.lines.append(message)

    def show(self, what: str, done: int, of: int) -> None:
        self.shown.add(what)


class Clock:
    """Stands for the timing of a group: every run takes so many `ms`; stops as Ctrl-C does before the `stop_at`-th."""

    def __init__(self) -> None:
        self.groups, self.stop_at, self.ms = 0, -1, 1.0

    def time(self, runs: Mapping[str, object], device: torch.device, **how: Any) -> dict[str, Timing]:
        if self.groups == self.stop_at:
            raise KeyboardInterrupt
        self.groups += 1
        ms = self.ms
        one = Timing(median_ms=ms, p95_ms=ms, low_ms=ms, high_ms=ms, runs=1, calls_per_run=1, settled=True)
        return dict.fromkeys(runs, one)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made_up = Clock()
    monkeypatch.setattr(engine, "time_interleaved", made_up.time)
    return made_up


def table(watcher: Any = SILENT, **options: Any) -> Path:
    return table_of_this_machine(Problem(SearchOptions(**{**ASKED, **options})), HARDWARE, watcher)


def test_it_is_measured_once_and_found_again(clock: Clock) -> None:
    first, second = Heard(), Heard()
    path = table(first)
    measured = clock.groups
    assert measured > 0
    assert first.shown == {"operators", "networks"}
    assert "measuring the operators" in first.lines[0]
    assert str(path) in first.lines[0]
    made = LatencyTable.load(path)
    assert made.conditions.threads == torch.get_num_threads()
    assert (made.conditions.size, made.conditions.dtype, made.conditions.batch) == ((64, 96), "float32", 1)
    os.utime(path, (time.time() - 3 * 24 * 3600,) * 2)
    assert table(second, target_latency="20ms", seed=4) == path
    assert clock.groups == measured + PASSES  # a few whole networks, for the machine's pace
    assert len(second.lines) == 1
    assert "of 3 days ago" in second.lines[0]
    assert "remove it to measure again" in second.lines[0]
    assert {file.suffix for file in path.parent.iterdir()} == {".json", ".lock"}


def test_a_machine_that_has_become_faster_or_slower_is_said_to_be(clock: Clock) -> None:
    table()
    for times_longer, warns in ((0.5, True), (0.95, False), (1.1, False), (1.5, True)):
        clock.ms, heard = times_longer, Heard()
        table(heard)
        warning = f"warning: networks take {times_longer:.2f} times as long now as when the table was made"
        assert any(line.startswith(warning) for line in heard.lines) == warns


def test_other_conditions_have_their_own(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {table(), table(data="streets:size=32x64,train=8,val=4,test=4"), table(space=f"{SPACE}:shared=false")}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    paths.add(table())
    assert len(paths) == 4


def test_an_interrupted_one_is_continued(clock: Clock) -> None:
    clock.stop_at = 3
    heard = Heard()
    with pytest.raises(KeyboardInterrupt):
        table(heard)
    assert "the same search continues from there" in heard.lines[-1]
    (partial,) = cache_folder().glob("*.partial")
    clock.stop_at = -1
    again = Heard()
    path = table(again)
    assert partial == partial_file(path)
    assert not partial.exists()
    assert "continuing to measure" in again.lines[0]
    whole = clock.groups
    path.unlink()
    table()
    assert clock.groups == 2 * whole  # nothing was measured twice


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"file/nasseg/latency cannot keep a latency table \(Not a directory\)"):
        table()
    assert clock.groups == 0


def test_the_cache_is_where_xdg_places_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/nasseg/latency")
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert cache_folder() == Path.home() / ".cache/nasseg/latency"


@pytest.mark.parametrize(
    ("budget", "seconds"), [("3min", 60), ("20min", 120), ("4h", 240), ("2cpu-h", 180), ("40trials", 240)]
)
def test_the_profile_is_a_small_part_of_the_search(budget: str, seconds: float) -> None:
    assert profile_seconds(Budget.parse(budget), HARDWARE) == seconds


def test_a_search_with_a_target_takes_it_and_keeps_a_copy(clock: Clock, tmp_path: Path) -> None:
    search = begin(tmp_path / "run", SearchOptions(**ASKED, budget="2trials"))
    assert search.problem.pricing.table == LatencyTable.load(tmp_path / "run" / LATENCY_TABLE_FILE)
    assert search.config.latency is not None
    assert Path(search.config.latency).parent == cache_folder()


def test_a_target_that_it_says_is_too_low_is_refused(clock: Clock, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"target_latency is 0.00 ms, but the fastest network found in the space has"):
        begin(tmp_path / "run", SearchOptions(**{**ASKED, "target_latency": "1us"}, budget="2trials"))
    assert not (tmp_path / "run").exists()
