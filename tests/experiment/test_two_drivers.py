"""Two searches in processes of their own, as on two machines, write one study in PostgreSQL; one is killed."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import optuna
import pytest

from nasseg.experiment.experiment import Experiment
from nasseg.experiment.shared import open_database
from nasseg.graph import load
from nasseg.planning.job import Outcome
from tests.experiment import driver
from tests.experiment.driver import CANDIDATES
from tests.jobs.tiny import SPACE

SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
MOST_SECONDS = 120


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of Debian's PostgreSQL server, started on a Unix socket as a user without rights, as it asks for."""
    if not SERVERS:
        pytest.skip("needs Debian's postgresql")
    binaries = SERVERS[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="nasseg-"))
    as_user: dict[str, object] = {}
    if os.getuid() == 0:
        shutil.chown(folder, "nobody", "nogroup")
        as_user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    made = [binaries / "initdb", "-D", folder / "data", "-U", "nasseg", "-A", "trust", "--no-sync"]
    subprocess.run(made, cwd=folder, check=True, stdout=subprocess.DEVNULL, **as_user)  # type: ignore[call-overload]
    settings = ["-c", "listen_addresses=", "-c", "fsync=off"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(  # type: ignore[call-overload]
            [SERVERS[-1], "-D", folder / "data", "-k", folder, *settings], cwd=folder, stderr=log, stdout=log, **as_user
        )
    try:
        wait_for(lambda: "ready to accept connections" in (folder / "log").read_text(), lambda: process.poll() is None)
        yield f"postgresql://nasseg@/postgres?host={folder}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        shutil.rmtree(folder)


def wait_for(condition: Callable[[], bool], is_alive: Callable[[], bool]) -> None:
    end = time.monotonic() + MOST_SECONDS
    while not condition():
        assert is_alive()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def start() -> Callable[..., BaseProcess]:
    """Start a driver; they fork from a process that has imported all they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.experiment.driver", "kornia.augmentation", "alembic.command", "psycopg"])

    def started(*arguments: object) -> BaseProcess:
        process = context.Process(target=driver.main, args=arguments)
        process.start()
        return process

    return started


def lines(folder: Path) -> list[str]:
    log = folder.with_suffix(".log")
    return log.read_text().splitlines() if log.exists() else []


def outcomes(url: str, study: str) -> dict[tuple[str, str], Outcome]:
    """What is on record, by key and rung or seed."""
    opened = optuna.load_study(storage=open_database(url), study_name=study)
    found = {
        (trial.user_attrs["key"], name): value
        for trial in opened.trials
        for name, value in trial.user_attrs.items()
        if name.startswith("step ")
    }
    found |= {("full", name): value for name, value in opened.user_attrs.items() if name.startswith("full ")}
    return {name: Outcome.model_validate(value) for name, value in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["true", pytest.param("false", marks=pytest.mark.long)])
def test_two_searches_write_one_study_and_a_kill_of_one_loses_nothing(
    server: str, start: Callable[..., BaseProcess], tmp_path: Path, shared: str
) -> None:
    space, study = f"{SPACE}:shared={shared}", f"study {shared}"
    one, two = tmp_path / "one", tmp_path / "two"
    killed, other = (start(folder, server, study, space) for folder in (one, two))
    wait_for(lambda: sum(line.startswith("proxy") for line in lines(one)) >= 3 and bool(lines(two)), killed.is_alive)
    killed.kill()
    killed.join()
    before = outcomes(server, study)
    for process in (other, start(one, server, study, space)):
        process.join()
        assert process.exitcode == 0

    after = outcomes(server, study)
    assert {name: after[name] for name in before} == before
    assert len(before) > 3
    trials = optuna.load_study(storage=open_database(server), study_name=study).trials
    assert Counter(Counter(trial.user_attrs["search"] for trial in trials).values()) == {CANDIDATES: 2}
    assert len({trial.user_attrs["key"] for trial in trials}) == 2 * CANDIDATES
    recorded = Counter(line for folder in (one, two) for line in lines(folder) if not line.startswith("prepare"))
    assert set(recorded.values()) == {1}
    # The first to end brings its files up to date when it is resumed.
    again = start(two, server, study, space)
    again.join()
    best = best_of(one, server, space)
    assert [load(folder / "best.json").key for folder in (one, two)] == [best, best]
    assert best_of(two, server, space) == best


def best_of(folder: Path, url: str, space: str) -> str:
    best = Experiment.open(folder, space=space, storage=url).results.best
    assert best is not None
    return best.key
