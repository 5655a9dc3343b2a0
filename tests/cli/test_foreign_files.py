"""Files from someone else: no command runs code that they name, nor writes where they say."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nasseg.experiment.experiment import Experiment
from nasseg.graph import load, save
from nasseg.jobs.context import Context
from nasseg.planning.config import SearchConfig
from nasseg.train.retrain import Retraining
from search_spaces.dpc import DPC
from tests.cli.conftest import Done
from tests.conftest import REPOSITORY
from tests.jobs.tiny import SPACE, tiny_config
from tests.report.made_up import snapshot
from tests.train.made_up import DATA, small_architecture

Run = Callable[..., Done]
Refused = Callable[..., str]
OWN_SPACE = """
from pathlib import Path
from tests.jobs.tiny import TinySpace
Path(__file__).with_name("imported").touch()

class OwnSpace(TinySpace):
    pass
"""


def run_search(config: SearchConfig, folder: Path) -> None:
    config.save(folder)
    Experiment(config, Context.open(config, folder)).run(threading.Event(), lambda search: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a whole search."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    run_search(tiny_config("3trials", candidates=3), folder)
    return folder


@pytest.fixture
def run_folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, three folders below the test's."""
    return shutil.copytree(finished, tmp_path / "from" / "someone" / "else")


@pytest.fixture(params=["shell", "module"])
def foreign_space(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A space that leaves the file `imported` or `called` where it is imported or called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "own_space", raising=False)
    (tmp_path / "own_space.py").write_text(OWN_SPACE)
    commands = {"shell": f"torch.utils.collect_env:run:command=touch {tmp_path / 'called'}"}
    return commands.get(request.param, "own_space:OwnSpace")


def best_json(folder: Path, space: str) -> Path:
    """A file of four classes, so that retraining builds it anew."""
    points = DPC(filters=8, branches=1)
    choice = points.references()["aspp"]
    network = points.architecture(choice, 4).replace(space=space, choice=choice.model_dump(mode="json"))
    save(network, folder / "best.json")
    return folder / "best.json"


def change_config(run: Path, **fields: Any) -> None:
    saved = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**saved, **fields}))


def outside(folder: Path, run: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_relative_to(run)}


@pytest.mark.parametrize(
    "command",
    [
        ("retrain", "best.json", "--data", DATA, "--out", "model"),
        ("retrain", "best.json:filters=16", "--data", DATA, "--out", "model"),
        ("describe", "best.json:filters=16"),
        ("benchmark", "best.json:filters=16", "--size", "32x32"),
    ],
)
def test_nothing_that_an_architecture_file_names_is_run(
    refused: Refused, tmp_path: Path, foreign_space: str, command: tuple[str, ...]
) -> None:
    best_json(tmp_path, foreign_space)
    name = ":".join(foreign_space.split(":")[:2])
    assert f"best.json: space {name} is not registered, and importing it runs its code" in refused(*command)
    assert {path.name for path in tmp_path.iterdir()} == {"own_space.py", "best.json"}


@pytest.mark.parametrize("command", [("report",), ("search", "--resume", "--out")])
def test_nothing_that_a_run_folder_names_is_run(
    refused: Refused, tmp_path: Path, run_folder: Path, foreign_space: str, command: tuple[str, ...]
) -> None:
    change_config(run_folder, space=foreign_space)
    before = outside(tmp_path, run_folder)
    name = ":".join(foreign_space.split(":")[:2])
    line = refused(*command, run_folder)
    assert line == (
        f"{run_folder / 'config.yaml'}: space {name} is not registered, and importing it runs its code; "
        f"if you trust that, add --space {name}"
    )
    assert outside(tmp_path, run_folder) == before


def test_a_space_that_is_named_must_be_the_one_in_the_file(
    refused: Refused, tmp_path: Path, run_folder: Path, foreign_space: str
) -> None:
    best_json(tmp_path, foreign_space)
    change_config(run_folder, space=foreign_space)
    before = outside(tmp_path, run_folder)
    for command in (
        ("retrain", "best.json", "--data", DATA, "--out", "model"),
        ("report", run_folder),
        ("search", "--resume", "--out", run_folder),
    ):
        assert f"space is {foreign_space!r}, but --space names 'dpc'" in refused(*command, "--space", "dpc")
    assert outside(tmp_path, run_folder) == before


def test_an_options_file_names_registered_spaces_only(refused: Refused, tmp_path: Path, foreign_space: str) -> None:
    (tmp_path / "options.yaml").write_text(yaml.safe_dump({"space": foreign_space, "out": "run"}))
    before = set(tmp_path.iterdir())
    for command in ("search", "profile"):
        line = refused(command, "--config", "options.yaml")
        assert line.startswith("options.yaml: space ")
        assert "is not registered, and importing it runs its code" in line
    assert set(tmp_path.iterdir()) == before


def test_a_space_that_the_user_names_too_is_used(nasseg: Run, run_folder: Path) -> None:
    assert nasseg("report", run_folder, "--space", SPACE, "--json").document["candidates"] == 3
    assert nasseg("search", "--resume", "--out", run_folder, "--space", SPACE, "--json").document["candidates"] == 3


def test_a_files_cluster_is_not_joined(refused: Refused, run_folder: Path) -> None:
    change_config(run_folder, ray_address="ray://nowhere:10001", runner="ray")
    line = refused("search", "--resume", "--out", run_folder, "--space", SPACE)
    assert line.startswith(f"{run_folder / 'config.yaml'}: ray_address is 'ray://nowhere:10001', and a cluster runs")
    assert line.endswith("give it again with --ray-address")


@pytest.mark.parametrize("name", ["label", "key"])
def test_no_name_in_the_record_leads_out_of_the_run_folder(
    refused: Refused, tmp_path: Path, run_folder: Path, name: str
) -> None:
    journal = run_folder / "study.journal"
    old = "plain" if name == "label" else load(run_folder / "best.json").key
    text = journal.read_text()
    assert f'"{old}"' in text
    journal.write_text(text.replace(f'"{old}"', '"../../outside"'))
    before = outside(tmp_path, run_folder)
    for command in (("report", run_folder), ("search", "--resume", "--out", run_folder)):
        line = refused(*command, "--space", SPACE)
        assert f"of the search's record: {name}: '../../outside' cannot name a file; use 1 to 100 letters" in line
    assert outside(tmp_path, run_folder) == before


def test_no_drawing_is_written_outside_of_the_run_folder(refused: Refused, tmp_path: Path, run_folder: Path) -> None:
    (run_folder / "relaxation").mkdir()
    text = snapshot().model_dump_json().replace('"name":"cell"', '"name":"../../../outside"')
    assert "outside" in text
    (run_folder / "relaxation" / "seed0.json").write_text(text)
    before = outside(tmp_path, run_folder)
    for command in (("report", run_folder), ("search", "--resume", "--out", run_folder)):
        line = refused(*command, "--space", SPACE)
        assert "seed0.json: graphs[1].name: '../../../outside' cannot name a file" in line
    assert outside(tmp_path, run_folder) == before


def test_a_password_is_in_no_file_and_is_given_again(nasseg: Run, refused: Refused, tmp_path: Path) -> None:
    run, database = tmp_path / "run", f"sqlite:///file%3A{tmp_path / 'record.db'}?uri=true"
    config = tiny_config("3trials", candidates=3).model_copy(update={"storage": f"{database}&password=secret"})
    run.mkdir()
    run_search(config, run)
    assert yaml.safe_load((run / "config.yaml").read_text())["storage"] == database
    assert refused("report", run, "--space", SPACE).endswith("if you trust that, give it again with --storage")
    report = ("report", run, "--space", SPACE)
    assert nasseg(*report, "--storage", f"{database}&password=secret", "--json").document["candidates"] == 3
    page = (run / "report.html").read_text()
    assert "record.db" in page
    assert [path for path in run.rglob("*") if path.is_file() and b"secret" in path.read_bytes()] == []
    line = refused(*report, "--storage", "sqlite:///other.db?password=secret")
    assert line == f"the search's record is in {database}, not in sqlite:///other.db; give the same URL"


@pytest.mark.parametrize("name", ["tensorboard", "checkpoints/extra", "report.html", "log.txt"])
def test_a_run_folder_with_a_link_out_of_it_is_refused(
    refused: Refused, tmp_path: Path, run_folder: Path, name: str
) -> None:
    target = tmp_path / "outside"
    target.mkdir()
    link = run_folder / name
    shutil.rmtree(link, ignore_errors=True)
    link.unlink(missing_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target / "file" if "." in name else target)
    before = outside(tmp_path, run_folder)
    for command in (("report", run_folder), ("search", "--resume", "--out", run_folder)):
        line = refused(*command, "--space", SPACE)
        assert line == f"{link} is a link out of the run folder, which runs write only within; remove it"
    assert outside(tmp_path, run_folder) == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 5000, "is nested over 50 deep, the most that is read; restore the record from a copy"),
        ("[]", "is no entry of a record; restore the record from a copy"),
        ('{"op_code": 99999999999999999999}', "holds the integer 99999999999999999999, but integers must have at most"),
        ("{}", "study.journal is damaged (KeyError: 'op_code'); restore the record from a copy"),
        ('{"op_code": 4, "study_id": 0}', "study.journal is damaged (KeyError: "),
        (
            '{"op_code": 2, "worker_id": "a", "study_id": 0, "user_attr": {"seconds of jobs": {"full": ["many"]}}}',
            "study.journal is damaged: full[0] is 'many', but must be a valid number",
        ),
        (
            '{"op_code": 2, "worker_id": "a", "study_id": 0, "user_attr": {"full key seed": {}}}',
            "study.journal is damaged",
        ),
    ],
)
def test_a_damaged_record_is_told_with_the_fix(refused: Refused, run_folder: Path, line: str, message: str) -> None:
    with (run_folder / "study.journal").open("a") as journal:
        journal.write(line + "\n")
    said = refused("report", run_folder, "--space", SPACE)
    assert message in said
    assert len(said) <= 300
    assert "pydantic" not in said


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("out: /tmp/elsewhere", "out leads out of the current folder; give it with --out"),
        ("out: ../elsewhere", "out leads out of the current folder; give it with --out"),
        ("storage: sqlite:////tmp/other.db", "storage connects to another machine or file; give it with --storage"),
        ("ray_address: ray://nowhere:10001", "ray-address connects to another machine or file; give it with --ray"),
    ],
)
def test_an_options_file_decides_nothing_outside(refused: Refused, tmp_path: Path, option: str, line: str) -> None:
    (tmp_path / "options.yaml").write_text(option)
    assert line in refused("search", "--config", tmp_path / "options.yaml")


def test_no_file_sends_scores_to_a_tracker(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "options.yaml").write_text("log: wandb")
    line = refused("retrain", "unet", "--config", tmp_path / "options.yaml")
    assert "log connects to another machine or file; give it with --log" in line
    options: dict[str, Any] = {**dict.fromkeys(("train_split", "val_split", "weights")), "log": "mlflow"}
    (tmp_path / "unet.json").write_text(small_architecture().model_dump_json())
    Retraining.prepare(
        str(tmp_path / "unet.json"),
        tmp_path / "run",
        **options,
        data=DATA,
        recipe="short",
        changes={"steps": 2},
        device="cpu",
        seed=0,
    )
    resumed = ("retrain", tmp_path / "unet.json", "--resume", "--out", tmp_path / "run")
    assert refused(*resumed) == "the run logs to mlflow; if you trust that, give --log mlflow"


def test_a_message_is_one_short_line_of_printable_characters(refused: Refused, tmp_path: Path) -> None:
    points = DPC(filters=8, branches=1)
    network = json.loads(points.architecture(points.references()["aspp"], 4).model_dump_json())
    network["nodes"][1]["name"] = "\x1b[2J" + "x" * 100_000
    (tmp_path / "best.json").write_text(json.dumps(network))
    line = refused("describe", tmp_path / "best.json")
    assert len(line) <= 300
    assert line.isprintable()
    assert "must be letters, digits and _" in line


@pytest.mark.long
@pytest.mark.parametrize("command", [["-m", "nasseg"], ["-c", "from nasseg.cli import main; main()"]])
def test_a_space_in_the_current_folder_as_the_example_tells_it(tmp_path: Path, command: list[str]) -> None:
    """With workers in processes of their own; another name of the class tells the module from the repository's."""
    source = (REPOSITORY / "examples" / "own_space.py").read_text()
    told = "search --space examples.own_space:TwoRates --budget 8trials"
    assert f"`nasseg {told}`" in source
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "own_space.py").write_text(source.replace("TwoRates", "TwoRatesHere"))
    told = told.replace("TwoRates", "TwoRatesHere").replace("8trials", "3trials")
    small = ["--data", DATA, "--rungs", "1", "--full-steps", "1", "--seeds", "1", "--finalists", "1"]
    isolated = ["-P", "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); {command[-1]}"]
    script = command if command[0] == "-m" else isolated
    done = subprocess.run(
        [sys.executable, *script, *told.split(), *small, "--device", "cpu", "--concurrency", "1", "--out", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "best.json").read_text())["space"] == "examples.own_space:TwoRatesHere"


def test_a_program_of_torch_is_not_opened(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.pt2").write_bytes(b"PK")
    rule = "model.pt2: opening a .pt2 file runs code in it; give the run it is from, or export --format onnx"
    for command in (("evaluate",), ("benchmark",), ("describe",), ("retrain",)):
        assert refused(*command, "model.pt2") == rule
