import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nasseg.run_folder import OWNER_FILE, check_new, claimed, file_name, new_folder


def fill_up(folder: Path, file: Path) -> None:
    with new_folder(folder):
        file.touch()
        raise OSError("full")


@pytest.mark.parametrize("name", ["plain", "auto_deeplab-s", "0-1-2", "8454ff1e69c7f9c1c6bf", "v1.5", "-", "x" * 100])
def test_names_of_files(name: str) -> None:
    assert file_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "/etc/x", "../up", "a\\b", "a b", "a\n", "\0", "ä", "x" * 101]
)
def test_what_could_lead_elsewhere_is_no_name_of_a_file(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"' cannot name a file; use 1 to 100 letters, digits, '_', '-' and '\.', with"
    ):
        file_name(name)


def test_a_folder_is_made_and_stays(tmp_path: Path) -> None:
    with new_folder(tmp_path / "runs" / "one"):
        (tmp_path / "runs" / "one" / "file").touch()
    assert (tmp_path / "runs" / "one" / "file").exists()


def test_of_a_failure_nothing_stays(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"):
        fill_up(tmp_path / "runs" / "one", tmp_path / "runs" / "one" / "file")
    assert list(tmp_path.iterdir()) == []


def test_the_runs_of_others_stay(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"):
        fill_up(tmp_path / "runs" / "one", tmp_path / "runs" / "two")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["two"]


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match=r"exists already; continue it with --resume, or name another"):
            check_new(path)
    (tmp_path / "empty").mkdir()
    check_new(tmp_path / "empty")


HOLD = """
import sys, time
from pathlib import Path
from nasseg.run_folder import claimed
with claimed(Path(sys.argv[1])):
    print("claimed", flush=True)
    time.sleep(60)
"""


def test_a_folder_in_use_is_refused_with_who_uses_it_until_that_process_ends(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"claimed\n"
        refusal = rf"is in use by process {holder.pid} on {re.escape(socket.gethostname())}; stop that first"
        for _ in range(2):
            with pytest.raises(ValueError, match=refusal), claimed(tmp_path):
                pass
        holder.kill()
        holder.wait()
        with claimed(tmp_path):
            assert str(os.getpid()) in (tmp_path / OWNER_FILE).read_text()
    assert list(tmp_path.iterdir()) == []
