import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def printed(example: str, *arguments: str, cwd: Path = REPOSITORY) -> str:
    """What the command in an example's docstring prints."""
    command = [sys.executable, "-W", "error", "-m", f"examples.{example}", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=True).stdout
