"""The short form of `benchmarks/fuzz.py`: a few inputs of every kind of file, always the same."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY


def test_mutated_files_are_accepted_or_refused_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks" / "fuzz.py", "--inputs", "200", "--jobs", "0", "--work", tmp_path],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["failures"] == []
    assert done.returncode == 0
    assert found["inputs"] >= 200
    assert min(found["accepted"], found["refused"]) > 25
