import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nasseg.cost import latency
from nasseg.cost.latency import Latency
from nasseg.cost.timing import StopRule
from nasseg.graph import save
from tests.train.made_up import small_architecture

from .conftest import Done

Run = Callable[..., Done]
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six rounds are enough to see what is printed."""

    monkeypatch.setattr(latency, "THOROUGH", StopRule(fewest_rounds=6, most_rounds=6))


def test_json_has_a_result_for_each_network(nasseg: Run, arch: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.json"
    done = nasseg(
        "benchmark",
        arch,
        "stdc1",
        "--size",
        "32x64",
        "--batch",
        2,
        "--json",
        "--out",
        out,
        "--device",
        "cpu",
        "--processes",
        2,
    )
    small, stdc1 = done.document
    assert (small["arch"], small["name"], small["madds"]) == (str(arch), "small", 16 * 32 * (216 + 64 + 104))
    assert stdc1["name"] == stdc1["arch"] == "stdc1"
    assert small["fps"] == pytest.approx(2000 / small["latency"]["median_ms"])
    assert (small["latency"]["runs"], small["latency"]["processes"]) == (12, 2)
    assert (small["latency"]["backend"], small["latency"]["batch"], small["latency"]["size"]) == ("eager", 2, [32, 64])
    assert json.loads(out.read_text()) == done.document


def test_results_are_told_even_if_their_file_cannot_be_written(nasseg: Run, arch: Path, tmp_path: Path) -> None:
    options = ("--size", "32x64", "--device", "cpu", "--processes", 1, "--json")
    done = nasseg("benchmark", arch, *options, "--out", tmp_path)
    assert (done.code, [result["name"] for result in done.document]) == (2, ["small"])
    done = nasseg("benchmark", arch, *options, "--out", arch / "out.json")
    assert (done.code, done.out) == (2, "")  # at once


def test_exported_files_and_run_folders_are_measured_beside_networks(
    nasseg: Run, refused: Refused, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    save(small_architecture(), model / "architecture.json")
    file = nasseg("export", model, "--json").document["file"]
    options = ("--size", "32x64", "--device", "cpu", "--processes", 1)
    by_run, by_file = nasseg("benchmark", model, file, *options, "--json").document
    assert (by_run["latency"]["backend"], by_file["latency"]["backend"]) == ("eager", "onnxruntime")
    assert {key: by_run[key] for key in ("name", "params", "madds")} == {
        key: by_file[key] for key in ("name", "params", "madds")
    }
    monkeypatch.setenv("COLUMNS", "200")
    assert "exported" in nasseg("benchmark", file, *options).out
    assert "takes images of 32x64, but was given one of 64x64" in refused("benchmark", file, "--size", "64x64")
    assert "exported files take one image" in refused("benchmark", file, "--size", "32x64", "--batch", 2)


def test_people_see_a_table(nasseg: Run, arch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = nasseg("benchmark", arch, "--size", "32x64", "--device", "cpu", "--processes", 1)
    assert "eager" in done.out
    assert "median ms" in done.out
    assert "float32, batch 1, 32x64" in done.out


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"settled": False, "high_ms": 10.4}, "eager: a did not settle: ±4.0% after 60 runs"),
        ({"drift": 0.05}, "eager: a drifted by 5.0% while it was measured; a repetition may differ as much"),
        ({"others_load": 0.5}, "eager: the device is busy: other programs used 50% of it; end them and measure again"),
        ({}, None),
    ],
)
def test_it_says_when_a_repetition_may_differ(
    nasseg: Run, arch: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], line: str | None
) -> None:
    quiet = Latency(
        median_ms=10,
        p95_ms=11,
        low_ms=9.95,
        high_ms=10.05,
        settled=True,
        drift=0.01,
        runs=20,
        device="TestChip 9",
        dtype="float32",
        batch=1,
        size=(32, 64),
        threads=1,
        torch="2.13",
        others_load=0.0,
    )
    monkeypatch.setattr(latency, "measure_latency_afresh", lambda *_, **__: {"a": quiet.model_copy(update=changes)})
    monkeypatch.chdir(arch.parent)
    arch.rename("a")
    done = nasseg("benchmark", "a", "--size", "32x64", "--device", "cpu")
    assert done.err.splitlines()[3:] == ([line] if line else [])
    assert "100.0" in done.out  # images per second


def test_what_cannot_be_measured_is_refused(refused: Refused, arch: Path) -> None:
    assert "unknown backend 'onyx'; known: eager," in refused("benchmark", arch, "--backend", "eager,onyx")
    assert "unknown dtype 'int4'" in refused("benchmark", arch, "--dtype", "int4")
    assert "device is cpu, but must be cuda" in refused("benchmark", arch, "--backend", "tensorrt", "--device", "cpu")
    assert "unknown architecture 'unett'" in refused("benchmark", arch, "unett")
    assert "has 13 classes; --classes is for networks given by name" in refused("benchmark", arch, "--classes", 3)
    assert "size '12' must be HEIGHTxWIDTH" in refused("benchmark", arch, "--size", "12")
    assert "Missing argument" in refused("benchmark")
