"""Shared by every test: one thread per process, a Ray of its own, the data beside the repository, GPU tests skipped."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from nasseg.threads import limit_spinning

# Read when torch and Ray load, so set before any test module is imported; child processes inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A cache for each kind of instructions, or it would give code made for others.
INSTRUCTIONS = os.environ.get("ATEN_CPU_CAPABILITY", "native")
os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(tempfile.gettempdir(), f"nasseg-{os.getuid()}-{INSTRUCTIONS}")
limit_spinning()
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # today's default, which Ray warns that it will change

settings.register_profile("nasseg", deadline=None)  # torch's first call takes far longer than the next ones
settings.load_profile("nasseg")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the `shared` fixture, so that `-m 'not shared'` leaves them out."""
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("long") and not os.environ.get("NASSEG_LONG"):
        pytest.skip("nearly the same as a quicker test; set NASSEG_LONG=1")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with `camvid/`, `nuclei/` and `weights/`: `NASSEG_SHARED`, or `shared` beside the repository."""
    folder = Path(os.environ.get("NASSEG_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no data at {folder / 'data'}: set NASSEG_SHARED to the folder that holds data/")
    return folder / "data"


@pytest.fixture(scope="session", autouse=True)
def ray_folder() -> Iterator[None]:
    """A temporary folder of this process for Ray, which joins no other cluster then.

    It is short because Ray's sockets lie in it, and their paths may have 107 characters at most.
    """
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder
        yield
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's cache out of the tests, which child processes inherit."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def brief_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure latencies at the end of a search only briefly."""
    from nasseg.cost.timing import StopRule

    monkeypatch.setattr("nasseg.cost.latency.BRIEF", StopRule(fewest_rounds=2, most_rounds=2))
