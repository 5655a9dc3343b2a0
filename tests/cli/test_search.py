import csv
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from nasseg.cli.search import stop_on_interrupt
from nasseg.graph import load
from nasseg.planning.options import COUNTS, DERIVED, GRADIENT, RUNS, SearchOptions
from tests.cli.conftest import Done
from tests.jobs.tiny import DATA as TINY_DATA
from tests.jobs.tiny import SPACE, latency_table, tiny_config
from tests.train.made_up import DATA

Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--budget", "200potatoes"), "budget '200potatoes' must be a number and a unit; write it like 200gpu-h"),
        (("--budget", "2gpu-h", "--device", "cpu"), "budget 2gpu-h needs a GPU, and there is none"),
        (("--budget", "0min"), "budget '0min' must be more than 0"),
        (("--space", "hexagons"), "unknown search space 'hexagons'; known: auto_deeplab, dpc"),
        (("--space", "dpc:arms=3"), "unknown option 'arms'; known: branches, backbone"),
        (("--space", "nothing.here:Space"), "nothing.here:Space cannot be imported"),
        (("--sampler", "dice"), "unknown sampler 'dice'; known: random, neighbourhood, evolution, tpe, nsga2, gp"),
        (("--rungs", "60,20"), "rungs are '60,20', but must be rising numbers of steps, like 60,180"),
        (("--finalists", "0"), "Invalid value for '--finalists'"),
        (("--rungs", "few"), "rungs are 'few', but must be rising numbers of steps"),
        (("--weights", "nothing.pth"), "nothing.pth: no such file"),
        (("--val-split", "dev"), "has no split 'dev'"),
        (("--device", "abacus"), "device is 'abacus', but must be auto, cpu"),
        (("--strategy", "magic"), "'magic' is not one of 'trials', 'gradient'"),
        (
            ("--strategy", "gradient"),
            "space 'encoder_decoder' cannot be searched by gradient; those that can: auto_deeplab",
        ),
        (("--relaxations", "2"), "relaxations is for strategy gradient; set that too, or leave it out"),
        (("--objective", "beauty"), "'beauty' is not one of 'score', 'pareto'"),
        (("--latency", "nothing.json"), "nothing.json: no such file; give a table of nasseg profile"),
        (("--target-latency", "20"), "target_latency is '20', but must be a number above 0 with a unit (ms, us, s)"),
        (
            ("--space", SPACE, "--max-params", "1K"),
            "max_params is 0.001 M parameters, but the smallest network found in the space has",
        ),
        (("--max-memory", "1"), "max_memory is '1', but must be a number above 0 with a unit (B, KB, MB"),
        (("--runner", "carrier"), "'carrier' is not one of 'ray', 'in-process'"),
    ],
)
def test_a_search_that_cannot_be_is_refused(refused: Refused, tmp_path: Path, options: tuple[str], line: str) -> None:
    assert line in refused("search", "--data", DATA, "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_folders_and_resuming(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "--resume needs --out RUN" in refused("search", "--resume")
    assert "holds no config.yaml; give the folder of a search" in refused("search", "--resume", "--out", tmp_path)
    assert "exists already; continue it with --resume" in refused("search", "--out", tmp_path)
    assert "holds no config.yaml; give the folder of a search" in refused("report", tmp_path)


def test_every_option_has_its_place_in_the_help(nasseg: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    done = nasseg("search", "--help")
    assert done.code == 0
    for name, field in SearchOptions.model_fields.items():
        line = next(line for line in done.out.splitlines() if f" --{name.replace('_', '-')} " in line)
        assert (field.description or "").split()[0] in line
    assert all(panel.panel and panel.panel in done.out for panel in (COUNTS, DERIVED, GRADIENT, RUNS))
    assert "[default: 30min]" in done.out


def test_options_come_from_the_command_line_then_a_file_then_the_defaults(
    nasseg: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, SearchOptions]] = []

    def begin(out: Path, options: SearchOptions, watcher: object) -> None:
        asked.append((out, options))
        raise ValueError("asked")

    monkeypatch.setattr("nasseg.experiment.begin.begin", begin)
    (tmp_path / "options.yaml").write_text("budget: 5min\nfull_steps: 7\nrungs: 20,60\ninherit: false\nfinalists: 3\n")
    given = ("--config", tmp_path / "options.yaml", "--finalists", "4", "--strategy", "gradient")
    memory = ("--no-checkpoint-activations", "--out", tmp_path / "run")
    assert nasseg("search", *given, *memory).err.endswith("nasseg: asked\n")
    expected = SearchOptions(
        budget="5min",
        full_steps=7,
        rungs=(20, 60),
        inherit=False,
        finalists=4,
        strategy="gradient",
        checkpoint_activations=False,
    )
    assert asked == [(tmp_path / "run", expected)]


def test_the_config_of_a_run_gives_its_options(
    nasseg: Callable[..., Done], refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[SearchOptions] = []

    def begin(out: Path, options: SearchOptions, watcher: object) -> None:
        asked.append(options)
        raise ValueError("asked")

    monkeypatch.setattr("nasseg.experiment.begin.begin", begin)
    run = tiny_config("5min").model_copy(update={"ray_address": "10.0.0.1:6379", "seed": 4})
    run.save(tmp_path)
    file = tmp_path / "config.yaml"
    err = nasseg("search", "--config", file, "--space", SPACE, "--finalists", "4", "--out", tmp_path / "run").err
    assert err.splitlines()[:2] == [
        f"{file}: taking this run's options as given; what was derived from them is derived anew",
        f"{file}: not taking --ray-address; give what another run is to use on the command line",
    ]
    options = {**run.as_options(), "finalists": 4}
    assert asked == [SearchOptions.parse(options)]
    assert "is not registered, and importing it runs its code" in refused("search", "--config", file)
    message = refused("describe", "unet", "--config", file)
    assert message == f"{file} is of a run of nasseg search; nasseg describe does not take its options"


def test_the_first_interrupt_stops_the_second_ends_and_the_third_does_so_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop = stop_on_interrupt()
    signal.raise_signal(signal.SIGTERM)
    assert stop.is_set()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    monkeypatch.setattr("os._exit", sys.exit)
    with pytest.raises(SystemExit) as ended:
        signal.raise_signal(signal.SIGINT)
    assert ended.value.code == 130


@pytest.mark.parametrize("passed_on", [False, True])
def test_an_interrupted_command_ends_with_130(
    nasseg: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passed_on: bool
) -> None:
    def begin(out: Path, options: SearchOptions, watcher: object) -> None:
        if passed_on:
            raise SystemError("returned a result with an exception set") from KeyboardInterrupt()
        raise KeyboardInterrupt

    monkeypatch.setattr("os._exit", sys.exit)
    monkeypatch.setattr("nasseg.experiment.begin.begin", begin)
    done = nasseg("search", "--out", tmp_path / "run")
    assert done.code == 130
    assert "Traceback" not in done.err


@pytest.mark.parametrize("url", ["abacus://x", "sqlite:////nothing/here.db"])
def test_a_storage_that_cannot_be_opened(refused: Refused, tmp_path: Path, url: str) -> None:
    options = ("--space", "dpc:filters=8,branches=1", "--data", DATA, "--budget", "2trials", "--storage", url)
    assert "storage cannot be opened (" in refused("search", *options, "--out", tmp_path / "runs" / "one")
    assert not (tmp_path / "runs").exists()


def test_a_missing_driver_names_the_extra_that_has_it(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    url = "postgresql://me:secret@localhost/runs"
    options = ("--space", SPACE, "--data", DATA, "--budget", "3trials", "--rungs", "1", "--full-steps", "1")
    line = refused("search", *options, "--storage", url, "--out", tmp_path / "run")
    assert line.startswith("storage cannot be opened (")
    assert line.endswith("install the database's driver; PostgreSQL's comes with pip install 'nasseg[postgresql]'")
    assert "secret" not in line


def test_what_is_no_url_is_not_repeated_as_it_may_hold_a_password(refused: Refused, tmp_path: Path) -> None:
    line = refused("search", "--storage", "postgresql:/me:secret@host/db", "--out", tmp_path / "run")
    assert line == "storage: a database needs a URL such as sqlite:///search.db or postgresql://user@host/name"


@pytest.mark.slow
def test_a_search_from_the_first_command_to_the_last(nasseg: Callable[..., Done], tmp_path: Path) -> None:
    run, model = tmp_path / "run", tmp_path / "model"
    dials = ("--rungs", "2,6", "--full-steps", "4", "--finalists", "1", "--seeds", "1", "--cost-weight", "0")
    what = ("--space", SPACE, "--data", TINY_DATA, "--budget", "5trials", "--runner", "in-process")
    done = nasseg("search", *what, *dials, "--out", run, "--json")
    assert done.code == 0
    found = done.document
    assert found["candidates"] == 5
    names = [network["name"] for network in found["networks"]]
    assert {"plain", "wide"} <= set(names)
    scores = [network["full_miou"] for network in found["networks"]]
    assert scores[0] == max(scores)
    assert load(run / "best.json").key == found["best"] == found["networks"][0]["key"]
    with (run / "trials.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    report = nasseg("report", run, "--space", SPACE, "--json")
    assert {**report.document, "elapsed_seconds": 0} == {**found, "elapsed_seconds": 0}
    assert nasseg("search", "--resume", "--out", run, *what, "--rungs", "2").err.endswith(
        "nasseg: rungs is (2,), but (2, 6) in the search; only --budget, --finalists, --concurrency, --runner and "
        "--ray-address can change\n"
    )
    (tmp_path / "options.yaml").write_text("seed: 3\n")
    from_file = nasseg("search", "--resume", "--out", run, "--space", SPACE, "--config", tmp_path / "options.yaml")
    assert "nasseg: seed is 3, but 0 in the search; only" in from_file.err
    changes = ("--budget", "6trials", "--finalists", "2", "--concurrency", "2", "--full-steps", "4")
    more = nasseg("search", "--resume", "--out", run, "--space", SPACE, *changes, "--json")
    assert more.document["candidates"] == 6
    plan = yaml.safe_load((run / "config.yaml").read_text())["plan"]
    assert (plan["finalists"], plan["concurrency"], plan["candidates"]) == (2, 2, 6)
    assert len({*(run / "checkpoints").glob("*-full0.safetensors")}) == 4  # two finalists and two references
    assert yaml.safe_load((run / "config.yaml").read_text())["budget"] == {"amount": 6.0, "unit": "trials"}
    assert nasseg("retrain", run / "best.json", "--steps", "2", "--batch-size", "2", "--out", model).code == 0
    assert nasseg("evaluate", model, "--split", "test", "--json").document["images"] == 4


@pytest.mark.slow
def test_searches_with_one_folder_name_share_a_database_but_a_study_only_if_it_is_named(
    nasseg: Callable[..., Done], refused: Refused, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/searches.db"
    dials = ("--rungs", "1,2", "--full-steps", "2", "--finalists", "1", "--seeds", "1", "--runner", "in-process")
    what = ("--space", SPACE, "--data", TINY_DATA, "--budget", "3trials", *dials, "--storage", url)
    one, other = tmp_path / "one" / "run", tmp_path / "other" / "run"
    first = nasseg("search", *what, "--seed", 1, "--out", one, "--json")
    assert nasseg("search", *what, "--seed", 2, "--out", other, "--study", "mine", "--json").document["candidates"] == 3
    report = nasseg("report", one, "--space", SPACE, "--storage", url, "--json").document
    assert {**report, "elapsed_seconds": 0} == {**first.document, "elapsed_seconds": 0}
    line = refused("search", *what, "--seed", 3, "--study", "mine", "--out", tmp_path / "third")
    assert line == "seed is 3, but 2 in study 'mine'; leave it out, or name another study"
    assert not (tmp_path / "third").exists()
    joining = ("--space", SPACE, "--storage", url, "--study", "mine", "--runner", "in-process")
    joined = nasseg("search", *joining, "--budget", "2trials", "--out", tmp_path / "third", "--json")
    assert "joins study 'mine': 1 other search, 3 candidates so far" in joined.err
    assert joined.document["candidates"] == 5
    report = nasseg("report", other, "--space", SPACE, "--storage", url, "--json").document
    assert (report["candidates"], report["best"]) == (5, joined.document["best"])
    again = ("--resume", "--out", other, "--space", SPACE, "--storage", url)
    resumed = nasseg("search", *again, "--study", "mine", "--json").document
    assert (resumed["candidates"], resumed["best"]) == (5, joined.document["best"])
    line = refused("search", *again, "--study", "yours")
    assert line.startswith("study is yours, but mine in the search; only --budget")
    assert "study names a record in a database; give --storage too" in refused("search", "--study", "mine")


@pytest.mark.slow
def test_a_search_whose_data_changed_is_not_resumed(
    nasseg: Callable[..., Done], refused: Refused, folder: Path, tmp_path: Path
) -> None:
    dials = ("--rungs", "1,2", "--full-steps", "2", "--finalists", "1", "--seeds", "1", "--runner", "in-process")
    what = ("--space", SPACE, "--data", f"folder:{folder}", "--budget", "3trials", "--out", tmp_path / "run")
    assert nasseg("search", *what, *dials).code == 0
    os.utime(folder / "masks" / "train" / "b.png")
    line = refused("search", "--resume", "--out", tmp_path / "run", "--space", SPACE, "--budget", "4trials")
    assert line.startswith(f"split 'train' of folder:{folder} has changed since the search began")
    assert nasseg("report", tmp_path / "run", "--space", SPACE).code == 0


@pytest.mark.slow
def test_a_front_within_limits_by_a_table(nasseg: Callable[..., Done], tmp_path: Path) -> None:
    table, run = tmp_path / "table.json", tmp_path / "run"
    latency_table((64, 96), classes=13).save(table)
    dials = ("--rungs", "2,6", "--full-steps", "4", "--finalists", "2", "--seeds", "1")
    what = ("--space", SPACE, "--data", TINY_DATA, "--budget", "6trials", "--runner", "in-process")
    goal = ("--objective", "pareto", "--latency", table, "--target-latency", "1.5ms", "--max-params", "3K")
    done = nasseg("search", *what, *dials, *goal, "--out", run)
    assert done.code == 0
    assert (
        "a front of mIoU and latency; its best is the most accurate up to 1.50 ms, and beyond by score = mIoU · (lat"
        in done.err
    )
    assert "limits: at most 1.50 ms, at most 0.003 M parameters" in done.err
    assert "The handcrafted wide breaks a limit" in done.err
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["sampler"], config["target_latency"], config["max_params"]) == ("nsga2", "1.5ms", "3K")
    best, *references = nasseg("report", run, "--space", SPACE, "--json").document["networks"]
    assert best["feasible"]
    assert 1 < best["predicted_latency_ms"] <= 1.5
    assert {network["name"]: network["feasible"] for network in references}["wide"] is False


@pytest.mark.slow
def test_a_search_by_gradient(nasseg: Callable[..., Done], tmp_path: Path) -> None:
    dials = ("--rungs", "2,6", "--full-steps", "4", "--seeds", "1", "--relax-steps", "4", "--relaxations", "1")
    memory = ("--partial-channels", "2", "--checkpoint-activations")
    what = ("--space", SPACE, "--data", TINY_DATA, "--budget", "5trials", "--runner", "in-process")
    done = nasseg("search", "--strategy", "gradient", *what, *dials, *memory, "--out", tmp_path / "run", "--json")
    assert done.code == 0
    assert "gradient: 1 relaxation" in done.err
    assert done.document["candidates"] == 5  # two references, what the relaxation found, and two more
    assert load(tmp_path / "run" / "best.json").key == done.document["best"]
    options = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["plan"]["relax_recipe"]["options"]
    assert options == {"partial_channels": 2, "checkpoint_activations": True}
