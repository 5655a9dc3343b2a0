import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from nasseg.report.live import LiveProgress, Progress, duration_text

PROGRESS = Progress(
    phase="proxy",
    spent=4.25,
    budget=10,
    unit="min",
    done=12,
    running=2,
    stopped=7,
    failed=1,
    best=0.52,
    best_name="3fa9c1",
    baseline=0.5,
    baseline_name="aspp",
    seconds_left=345,
)
LINE = (
    "proxy | 12 done, 2 running, 7 stopped early, 1 failed | best 0.5200 (3fa9c1) +0.0200, baseline 0.5000 (aspp) | "
    "4.2 of 10 min spent, 5.8 left | 5 min 45 s to the end"
)


def lines_of(updates: list[tuple[float, Progress]]) -> list[str]:
    """The lines that a pipe gets from updates at these times."""
    out, now = io.StringIO(), [0.0]
    with LiveProgress(Console(file=out), clock=lambda: now[0]) as live:
        for at, progress in updates:
            now[0] = at
            live.update(progress)
    return out.getvalue().splitlines()


def test_a_line_tells_everything() -> None:
    assert PROGRESS.line() == LINE
    start = Progress(phase="prepare", spent=0, budget=40, unit="trials")
    assert start.line() == (
        "prepare | 0 done, 0 running, 0 stopped early, 0 failed | best –, baseline – | 0 of 40 trials spent, 40 left"
    )


def test_a_pipe_gets_a_line_at_changes_and_intervals_and_at_the_end() -> None:
    updates = [(0, PROGRESS), (10, PROGRESS), (29, PROGRESS), (31, PROGRESS)]
    assert lines_of(updates) == [LINE] * 3
    better, next_phase = replace(PROGRESS, best=0.6), replace(PROGRESS, best=0.6, phase="full")
    told = [(0, PROGRESS), (1, better), (2, better), (3, next_phase)]
    assert lines_of(told) == [LINE, better.line(), next_phase.line(), next_phase.line()]


def test_no_update_prints_nothing() -> None:
    assert lines_of([]) == []


def test_a_terminal_gets_a_panel_and_messages_above_it() -> None:
    out = io.StringIO()
    with LiveProgress(Console(file=out, force_terminal=True, width=100, legacy_windows=False)) as live:
        live.print("plan: 40 candidates")
        live.update(PROGRESS)
        live.update(replace(PROGRESS, done=13))
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "plan: 40 candidates" in text
    assert "╭─ proxy" in text
    assert "13 done, 2 running, 7 stopped early, 1 failed" in text


def test_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveProgress() as live:
        live.update(PROGRESS)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert LINE in captured.err


@pytest.mark.parametrize(
    ("seconds", "text"), [(9.4, "9 s"), (750, "12 min 30 s"), (3900, "1 h 05 min"), (3599.7, "1 h 00 min"), (-1, "0 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
