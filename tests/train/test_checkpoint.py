import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nasseg.train.checkpoint import load_checkpoint, save_checkpoint

from .tiny import tiny_network


def test_round_trip_leaves_one_file(tmp_path: Path) -> None:
    state = {"step": 3, "network": tiny_network().state_dict(), "nested": [{"lr": 0.1}, None]}
    save_checkpoint(tmp_path / "a.pt", {"step": 2})
    save_checkpoint(tmp_path / "a.pt", state)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert loaded["step"] == 3
    assert loaded["nested"] == state["nested"]
    torch.testing.assert_close(loaded["network"], state["network"], rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    """A limit on file sizes stands in for the full disk: both fail in the middle of writing."""
    program = (
        "import signal, sys, torch; from pathlib import Path; from nasseg.train.checkpoint import save_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try: save_checkpoint(Path(sys.argv[1]), {'large': torch.zeros(100_000)})\n"
        "except OSError: sys.exit(7)"
    )
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"step": 1})
    result = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert result.returncode == 7
    assert load_checkpoint(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated"])
def test_damaged_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pt: not a checkpoint, or a damaged one"):
        load_checkpoint(tmp_path / "a.pt")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        load_checkpoint(tmp_path / "a.pt")


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"path": tmp_path}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "a.pt")
