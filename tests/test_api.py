"""The Python interface, as the documentation has it."""

import subprocess
import sys
from pathlib import Path

import pytest

import nasseg
from nasseg.graph import Architecture
from nasseg.train.model import load_model
from tests.conftest import REPOSITORY
from tests.jobs.tiny import DATA, SPACE, TinySpace


def test_a_search_gives_the_best_architecture_and_its_run_folder(tmp_path: Path) -> None:
    best = nasseg.search(
        tmp_path / "run", budget="3trials", space=SPACE, data=DATA, runner="in-process", device="cpu", concurrency=2,
        rungs=(2, 4), full_steps=2, finalists=1, seeds=1, seed=3,
    )  # fmt: skip
    assert isinstance(best, Architecture)
    assert nasseg.load(tmp_path / "run" / "best.json") == best
    assert {"report.html", "trials.csv", "tensorboard", "log.txt"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }
    choice = TinySpace().parse(best.choice or {})
    assert TinySpace().architecture(choice, best.classes).key == best.key
    assert best.describe(size=(64, 96)).params > 0
    network, provenance = load_model(tmp_path / "run")
    assert network.architecture.key == best.key
    assert (provenance.seed, provenance.budget) == (3, "3trials")
    with pytest.raises(ValueError, match="exists already"):
        nasseg.search(tmp_path / "run", budget="3trials")


def test_a_baseline_has_the_classes_and_options_asked_for() -> None:
    assert nasseg.baseline("stdc1", num_classes=19).classes == 19
    assert nasseg.baseline("unet", 2, in_channels=1, norm="none", bias=True) == nasseg.baseline(
        "unet:in_channels=1,norm=none,bias=true", 2
    )
    with pytest.raises(ValueError, match=r"unknown baseline 'vnet'; known: .*unet"):
        nasseg.baseline("vnet")
    with pytest.raises(ValueError, match=r"unet: unknown option 'depht'; known: .*"):
        nasseg.baseline("unet", depht=3)


def test_a_file_that_is_no_architecture_names_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "best.json"
    file.write_text('{"format": "nasseg.architecture/1", "name": "x", "nodes": [], "outputs": []}')
    with pytest.raises(ValueError, match=r"best\.json"):
        nasseg.load(file)
    with pytest.raises((ValueError, OSError), match=r"nowhere\.json"):
        nasseg.load(tmp_path / "nowhere.json")


def test_importing_nasseg_imports_nothing_heavy() -> None:
    script = "import sys, nasseg; print([m for m in ('torch', 'ray', 'optuna', 'numpy', 'plotly') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert output.stdout.strip() == "[]"
