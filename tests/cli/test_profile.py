from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from nasseg.cost.calibration import PredictionError
from nasseg.cost.latency_table import LatencyTable
from nasseg.cost.timing import time_interleaved
from tests.cli.conftest import Done
from tests.jobs.tiny import latency_table

Run = Callable[..., Done]
Refused = Callable[..., str]
TINY = ("--space", "tests.jobs.tiny:TinySpace", "--size", "16x24", "--device", "cpu", "--classes", 3)


def test_a_table_is_written_and_summed_up(nasseg: Run, tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    done = nasseg("profile", *TINY, "--limit", "0.5s", "--networks", 10, "--threads", 1, "--out", out, "--json")
    assert done.code == 0, done.err
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
    table = LatencyTable.load(out)
    assert (table.conditions.size, table.conditions.dtype, table.conditions.threads) == ((16, 24), "float32", 1)
    assert done.document["operators_measured"] == done.document["operators_found"] == len(table.entries)
    assert done.document["mape_percent"] == table.error.mape_percent
    assert done.document["slowest"][0]["ms"] == max(entry.median_ms for entry in table.entries)
    assert done.document["fastest"][-1]["ms"] == min(entry.median_ms for entry in table.entries)
    assert f"wrote {out}" in done.err


def test_a_poor_table_is_written_with_a_warning(nasseg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nasseg.cost import profile

    table = latency_table((16, 24), classes=3)
    poor = PredictionError(networks=10, spearman=-0.68, mape_percent=50)
    monkeypatch.setattr(profile, "profile", lambda *_, **__: table.model_copy(update={"error": poor}))
    done = nasseg("profile", *TINY, "--out", tmp_path / "table.json", "--json")
    assert f"warning: the table is {poor}; a table that is off by over 15 %, or ranks below 0.7, hardly" in done.err
    assert "ranks them with a Spearman correlation of -0.680 (10 networks)" in done.err


@pytest.mark.parametrize(
    ("groups", "left", "said"),
    [
        (0, [], "stopped; nothing was measured yet"),
        (1, ["table.json.partial"], "what was measured is saved. Continue with the same command and --resume"),
    ],
)
def test_a_stopped_profile_says_how_to_go_on(
    nasseg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: int, left: list[str], said: str
) -> None:
    from nasseg.cost import profile

    done_groups = count()

    def stopped(*arguments: Any, **options: Any) -> object:
        if next(done_groups) == groups:
            raise KeyboardInterrupt
        return time_interleaved(*arguments, **options)

    monkeypatch.setattr(profile, "time_interleaved", stopped)
    done = nasseg("profile", *TINY, "--out", tmp_path / "table.json")
    assert done.code == 130
    assert said in done.err
    assert ("--resume" in done.err) == bool(left)
    assert [path.name for path in tmp_path.iterdir()] == left


def test_mistakes_are_refused_before_anything_is_measured(refused: Refused, tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    assert "limit is '3trials', but must be a time" in refused("profile", *TINY, "--out", out, "--limit", "3trials")
    assert "unknown backend 'fast'; known: eager" in refused("profile", *TINY, "--out", out, "--backend", "fast")
    assert "unknown search space 'dcp'" in refused("profile", "--space", "dcp", "--out", out)
    assert "is not a folder" in refused("profile", *TINY, "--out", tmp_path / "none" / "table.json")
    assert "there is no" in refused("profile", *TINY, "--out", out, "--resume")
    out.with_name("table.json.partial").write_text("{}")
    assert "continue it with --resume, or remove it" in refused("profile", *TINY, "--out", out)
    assert "format is None, but must be" in refused("profile", *TINY, "--out", out, "--resume")
    out.write_text("{}")
    assert "exists; remove it, or name another file" in refused("profile", *TINY, "--out", out)
