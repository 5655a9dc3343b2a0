"""Workers on machines that do not see the run folder."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import ray

from nasseg.graph import write_atomically
from nasseg.jobs.remote import RemoteWorker, folder_of_this_machine, open_worker
from nasseg.jobs.runners.ray_folder import RayRunFolder
from nasseg.jobs.runners.ray_session import machines, session
from nasseg.jobs.worker import Worker
from nasseg.planning.job import Job, JobResult
from nasseg.run_folder import CONFIG_FILE, LATENCY_TABLE_FILE, OWNER_FILE
from tests.jobs.test_worker import OTHER, PLAIN, job
from tests.jobs.tiny import gradient_config, latency_table, tiny_config

JOBS = [
    job("prepare", PLAIN),
    job("proxy", PLAIN, OTHER, stop=2),
    job("proxy", OTHER, start=2, stop=6),
    job("full", OTHER, seed=1),
]


class FarFolder:
    """A run folder on another machine."""

    identity = "far"

    def __init__(self, path: Path, here: bool = False) -> None:
        self.path, self.here = path, here
        path.mkdir()

    def is_here(self) -> bool:
        return self.here

    def fetch(self, names: Sequence[str]) -> Mapping[str, bytes]:
        return {name: (self.path / name).read_bytes() for name in names if (self.path / name).exists()}

    def store(self, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            (self.path / name).parent.mkdir(exist_ok=True)
            write_atomically(self.path / name, content)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of the worker's machine."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return folder_of_this_machine("far")


def files(folder: Path) -> set[str]:
    return {file.name for file in (folder / "checkpoints").iterdir()}


def run(worker: Worker, *jobs: Job) -> list[JobResult]:
    results = [worker.run(job) for job in jobs]
    return [result.model_copy(update={"seconds": 0.0, "storing_seconds": 0.0}) for result in results]


def test_what_a_job_reads_and_writes_travels_with_it(machine: Path, tmp_path: Path) -> None:
    (tmp_path / "near").mkdir()
    expected = run(Worker.open(tiny_config(), tmp_path / "near"), *JOBS)
    far = FarFolder(tmp_path / "far")
    assert run(open_worker(tiny_config(), far), *JOBS) == expected
    assert files(far.path) == files(tmp_path / "near")
    assert not (far.path / "features").exists()
    assert all(name.endswith(".safetensors") for name in files(machine)), "checkpoints are the run folder's alone"
    assert machine.stat().st_mode & 0o777 == 0o700


def test_another_machine_goes_on(machine: Path, tmp_path: Path) -> None:
    (tmp_path / "near").mkdir()
    expected = run(Worker.open(tiny_config(), tmp_path / "near"), *JOBS)
    far = FarFolder(tmp_path / "far")
    found = []
    for number, each in enumerate(JOBS):
        found += run(open_worker(tiny_config(), far), each)
        machine.rename(tmp_path / f"machine that left {number}")
    assert found == expected


def test_relaxations_travel_too(machine: Path, tmp_path: Path) -> None:
    far = FarFolder(tmp_path / "far")
    first, second = job("relax", stop=2), job("relax", start=2, stop=4)
    (tmp_path / "near").mkdir()
    expected = run(Worker.open(gradient_config(), tmp_path / "near"), first, second)
    assert run(open_worker(gradient_config(), far), first) == expected[:1]
    machine.rename(tmp_path / "machine that left")
    assert run(open_worker(gradient_config(), far), second) == expected[1:]
    assert (far.path / "relaxation" / "seed0.json").exists()


def test_the_latency_table_is_fetched(machine: Path, tmp_path: Path) -> None:
    far = FarFolder(tmp_path / "far")
    latency_table((64, 96), 6).save(far.path / LATENCY_TABLE_FILE)
    worker = RemoteWorker(tiny_config(), far)
    assert worker.context.problem.pricing.table is not None


def test_a_machine_that_sees_the_run_folder_works_in_it(machine: Path, tmp_path: Path) -> None:
    run(open_worker(tiny_config(), FarFolder(tmp_path / "far", here=True)), JOBS[0])
    assert files(tmp_path / "far")
    assert not machine.exists()


def test_a_folder_of_somebody_else_is_refused(machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.mkdir()
    monkeypatch.setattr("os.getuid", lambda: 12345)
    with pytest.raises(ValueError, match="belongs to somebody else"):
        open_worker(tiny_config(), FarFolder(tmp_path / "far"))


def test_a_run_folder_is_reached_through_ray(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text("a: 1")
    (tmp_path / OWNER_FILE).write_text("process 1 on here")
    with session(None, 1):
        folder = RayRunFolder(tmp_path)
        assert folder.is_here()
        folder.store({"checkpoints/a.pt": b"a", "relaxation/b.json": b"b"})
        assert (tmp_path / "checkpoints" / "a.pt").read_bytes() == b"a"
        assert folder.fetch(["relaxation/b.json", "checkpoints/none.pt"]) == {"relaxation/b.json": b"b"}
        (tmp_path / CONFIG_FILE).write_text("a: 2")
        assert RayRunFolder(tmp_path).identity != folder.identity
        folder.clean()


def test_jobs_see_the_gpu_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with session(None, gpu=1):
        seen = ray.get(ray.remote(num_gpus=1)(lambda: os.environ["CUDA_VISIBLE_DEVICES"]).remote())
    assert (seen, os.environ["CUDA_VISIBLE_DEVICES"]) == ("7", "4,7")


def test_a_client_of_a_cluster_is_told_where_to_search() -> None:
    with pytest.raises(ValueError, match="'ray://head:10001', but the search must run on a machine of the cluster"):
        machines("ray://head:10001")
