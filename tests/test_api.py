"""The Python interface, as the documentation has it."""

import doctest
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import nasseg
from nasseg.cost.latency_table import LatencyTable
from nasseg.export.model import Model
from nasseg.graph import Architecture, Builder, save
from nasseg.planning.options import SearchOptions
from nasseg.space import Choice, Space
from nasseg.train.fit import seeded_network
from nasseg.train.model import load_model, save_model
from tests.conftest import REPOSITORY
from tests.jobs.tiny import DATA, SPACE, TinySpace
from tests.train.made_up import provenance, small_architecture


def test_a_search_gives_the_best_architecture_and_its_run_folder(tmp_path: Path) -> None:
    best = nasseg.search(
        tmp_path / "run",
        budget="3trials",
        space=SPACE,
        data=DATA,
        runner="in-process",
        device="cpu",
        concurrency=2,
        rungs=(2, 4),
        full_steps=2,
        finalists=1,
        seeds=1,
        seed=3,
    )
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


def test_a_trained_run_gives_the_trained_network(tmp_path: Path) -> None:
    save(small_architecture(), tmp_path / "best.json")
    with pytest.raises(ValueError, match=r"holds no trained model yet; load .*best\.json for its untrained architec"):
        nasseg.load(tmp_path)
    network = seeded_network(small_architecture(), 7)
    save_model(tmp_path / "model.safetensors", network, provenance())
    for path in (tmp_path, tmp_path / "model.safetensors"):
        model = nasseg.load(path)
        assert isinstance(model, nasseg.Model)
        mask = model.predict(np.zeros((20, 30, 3), np.uint8))
        assert (mask.shape, mask.dtype) == ((20, 30), np.uint8)
        weight = model.network().state_dict()["head.logits.weight"]
        assert torch.equal(weight, network.state_dict()["head.logits.weight"])
    assert isinstance(nasseg.load(tmp_path / "best.json"), Architecture)


def test_importing_nasseg_imports_nothing_heavy() -> None:
    script = "import sys, nasseg; print([m for m in ('torch', 'ray', 'optuna', 'numpy', 'plotly') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert output.stdout.strip() == "[]"


def test_names_are_found_where_they_are_defined() -> None:
    found = [nasseg.Architecture, nasseg.Builder, nasseg.Choice, nasseg.LatencyTable, nasseg.Model, nasseg.Space]
    assert found == [Architecture, Builder, Choice, LatencyTable, Model, Space]
    assert all(hasattr(nasseg, name) for name in nasseg.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", nasseg.__version__)
    with pytest.raises(AttributeError, match="module 'nasseg' has no attribute 'serach'"):
        _ = nasseg.serach  # type: ignore[attr-defined]


def test_a_search_takes_the_options_that_the_command_line_has() -> None:
    out, *keywords = inspect.signature(nasseg.search).parameters.values()
    assert out.name == "out"
    assert {keyword.name: keyword.default for keyword in keywords} == {
        name: field.default for name, field in SearchOptions.model_fields.items()
    }
    assert all(f"    {name}: " in (nasseg.search.__doc__ or "") for name in SearchOptions.model_fields)
    with pytest.raises(TypeError, match="positional"):
        nasseg.search("run", "dpc")  # type: ignore[misc]


@pytest.fixture
def made_up_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[SearchOptions]:
    """Searches end at once, with U-Net in `best.json`, and tell what they were asked for."""
    asked: list[SearchOptions] = []

    def begin(out: Path, options: SearchOptions, watcher: object) -> Any:
        asked.append(options)
        out.mkdir(parents=True)
        save(nasseg.baseline("unet", 2), out / "best.json")
        return SimpleNamespace(
            folder=out,
            run=lambda *_: None,
            results=SimpleNamespace(best=out),
            architecture=lambda _: nasseg.baseline("unet", 2),
        )

    @contextmanager
    def reporter(run: Any) -> Iterator[Any]:
        yield SimpleNamespace(update=None)

    monkeypatch.setattr("nasseg.experiment.begin.begin", begin)
    monkeypatch.setattr("nasseg.report.search.SearchReporter", reporter)
    monkeypatch.chdir(tmp_path)
    return asked


def test_examples_in_docstrings_run(made_up_search: list[SearchOptions]) -> None:
    found = doctest.DocTestFinder().find(nasseg, extraglobs={"nasseg": nasseg})
    tests = {test.name: test for test in found if test.examples}
    assert set(tests) == {"nasseg", "nasseg.search", "nasseg.load", "nasseg.baseline"}
    for name in ("nasseg", "nasseg.search", "nasseg.load", "nasseg.baseline"):
        assert doctest.DocTestRunner().run(tests[name]).failed == 0
    assert [str(options.budget) for options in made_up_search] == ["10min"]


def python_of_readme() -> str:
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


def test_the_python_of_the_readme_runs(made_up_search: list[SearchOptions]) -> None:
    exec(python_of_readme(), {})
    assert [(options.space, options.max_madds) for options in made_up_search] == [("encoder_decoder", "100M")]


WRONG = """
nasseg.search("runs/third", finalist=3)
nasseg.search("runs/third", finalists="3")
nasseg.search("runs/third", strategy="magic")
nasseg.serach("runs/third")
"""


@pytest.mark.long
@pytest.mark.parametrize("plugin", ["", "plugins = pydantic.mypy"])
def test_a_type_checker_accepts_the_readme_and_refuses_wrong_options(tmp_path: Path, plugin: str) -> None:
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nstrict = true\nfollow_imports = silent\n{plugin}\n[mypy-networkx.*]\nignore_missing_imports = true\n"
    )
    code = python_of_readme()
    (tmp_path / "readme.py").write_text(code)
    (tmp_path / "wrong.py").write_text(code + WRONG)
    command = [sys.executable, "-m", "mypy", "--config-file", tmp_path / "mypy.ini", "--cache-dir", tmp_path / "cache"]
    command.append("--explicit-package-bases")
    done = subprocess.run(
        [*command, tmp_path / "readme.py", tmp_path / "wrong.py", REPOSITORY / "examples"],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    errors = re.findall(r"(\w+\.py):(\d+): error: .*\[(.*)\]", done.stdout)
    first = code.count("\n") + 2
    codes = ["call-arg", "arg-type", "arg-type", "attr-defined"]
    assert errors == [("wrong.py", str(first + line), code) for line, code in enumerate(codes)], done.stdout
