"""The time that a search has spent: over several runs, and after a kill."""

import time
from pathlib import Path

import pytest

from nasseg.experiment.stopwatch import Stopwatch


def test_all_runs_count_but_not_the_time_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for expected in (7.0, 14.0):
        stopwatch = Stopwatch(tmp_path)
        with stopwatch.running():
            now += 7
        assert stopwatch.seconds == expected
        now += 500
    assert Stopwatch(tmp_path).seconds == 14


def test_a_look_at_a_search_writes_nothing_and_takes_none_of_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stopwatch = Stopwatch(tmp_path)
    now += 60
    assert stopwatch.seconds == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["-1", "1e999", '"1"', "", "[1]"])
def test_a_damaged_time_is_told_with_its_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "spent_seconds.json").write_text(content)
    with pytest.raises(ValueError, match=r"spent_seconds\.json .*; remove it to count the time anew$"):
        Stopwatch(tmp_path)


def test_it_stops_with_the_jobs_and_goes_on_with_the_next_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("nasseg.experiment.stopwatch.time.monotonic", lambda: now[0])
    stopwatch = Stopwatch(tmp_path)
    now[0] = 103.0
    assert stopwatch.seconds == 0
    with stopwatch.running():
        assert stopwatch.seconds == 3
        now[0] = 110.0
    now[0] = 150.0
    assert stopwatch.seconds == 10
    with stopwatch.running():
        assert stopwatch.seconds == 10
        now[0] = 152.0
    now[0] = 200.0
    assert stopwatch.seconds == Stopwatch(tmp_path).seconds == 12
