import resource
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from nasseg.cli.main import COMMANDS, app
from tests.train.made_up import DATA

from .conftest import Done

Run = Callable[..., Done]
Refused = Callable[..., str]


def test_help_names_every_command(nasseg: Run) -> None:
    for arguments in ((), ("--help",), ("-h",)):
        done = nasseg(*arguments)
        assert done.code == 0
        assert all(command in done.out for command in COMMANDS)


def test_the_version_is_the_packages(nasseg: Run) -> None:
    assert nasseg("--version") == (0, f"nasseg {version('nasseg')}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help(command: str) -> None:
    parameters = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    assert [p.name for p in parameters if p.name != "help" and not p.help] == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["describe", "unet", "--siz", "1x1"], "No such option: --siz"),
        (["describe"], "Missing argument 'ARCH'; see nasseg describe --help"),
        (["describe", "unet", "--classes", "many"], "Invalid value for '--classes'"),
        (["search", "--cost-weight", "1"], "Invalid value for '--cost-weight'"),
        (["search", "--image-scale", "0"], "Invalid value for '--image-scale'"),
        (["list", "networks"], "'networks' is not one of 'spaces', 'baselines', 'datasets', 'ops'"),
        (["sing"], "No such command 'sing'"),
    ],
)
def test_a_wrong_command_line_ends_in_one_line(nasseg: Run, arguments: list[str], line: str) -> None:
    done = nasseg(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("nasseg: ")
    assert line in done.err


def test_debug_shows_the_traceback_wherever_it_stands(nasseg: Run) -> None:
    assert "Traceback" not in nasseg("describe", "nothing.json").err
    for arguments in (("--debug", "describe", "nothing.json"), ("describe", "nothing.json", "--debug")):
        done = nasseg(*arguments)
        assert done.code == 2
        assert "Traceback" in done.err
        assert done.err.splitlines()[-1].startswith("nasseg: nothing.json: no such file")


def test_a_bug_of_ours_is_exit_code_1(nasseg: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasseg.plugins.architecture", lambda *_, **__: 1 / 0)
    done = nasseg("describe", "unet")
    assert (done.code, done.out) == (1, "")
    assert done.err == "nasseg: ZeroDivisionError: division by zero (run again with --debug for the traceback)\n"


def test_a_long_error_of_a_library_is_cut(nasseg: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no memory " * 1000)

    monkeypatch.setattr("nasseg.plugins.architecture", fail)
    err = nasseg("describe", "unet").err
    assert len(err.removeprefix("nasseg: ").removesuffix("\n")) in {299, 300}
    assert " … " in err
    assert err.endswith("no memory (run again with --debug for the traceback)\n")


def test_options_come_in_any_order(nasseg: Run, arch: Path) -> None:
    results = [
        nasseg("describe", *order)
        for order in ((arch, "--size", "32x64", "--json"), ("--json", "--size", "32x64", arch))
    ]
    assert results[0] == results[1]
    assert results[0].code == 0


def test_a_config_gives_options_and_the_command_line_goes_before_it(nasseg: Run, arch: Path, tmp_path: Path) -> None:
    config = tmp_path / "options.yaml"
    config.write_text("size: 32x64\njson: true\n")
    assert nasseg("describe", arch, "--config", config).document["size"] == [32, 64]
    assert nasseg("describe", arch, "--size", "64x64", "--config", config).document["size"] == [64, 64]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("sise: 1", "unknown option 'sise'; known: classes, json, size"),
        ("- size", "holds list, but must hold lines such as seed: 1"),
        ("a: [", "is not YAML"),
        ("size: 12", "size '12' must be HEIGHTxWIDTH"),
        ("classes: many", "Invalid value for '--classes'"),
    ],
)
def test_a_wrong_config_is_refused(refused: Refused, arch: Path, tmp_path: Path, content: str, line: str) -> None:
    (tmp_path / "options.yaml").write_text(content)
    assert line in refused("describe", arch, "--config", tmp_path / "options.yaml")


def test_a_config_that_cannot_be_read_is_refused(refused: Refused, arch: Path, tmp_path: Path) -> None:
    assert "no such file" in refused("describe", arch, "--config", tmp_path / "nothing.yaml")
    assert "is a folder" in refused("describe", arch, "--config", tmp_path)


def test_the_installed_command_on_a_disk_that_fills_up(arch: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk."""
    script = "from nasseg.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "retrain", arch, "--data", DATA, "--out", tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)),
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("nasseg: ")
    assert f"{tmp_path / 'run' / 'architecture.json'}: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
