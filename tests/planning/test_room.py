"""What memory and disk suffice for."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasseg.planning import machine
from nasseg.planning.machine import PROCESS_BYTES, Hardware, Machine, Room, Speed, free_memory_bytes
from nasseg.planning.options import SearchOptions
from nasseg.planning.plan import IMAGE_SCALES, derive_plan

GIB = float(1 << 30)
SPEED = Speed(
    image_scale=0.5,
    full_step_seconds=0.4,
    proxy_step_seconds=0.02,
    forward_seconds=0.1,
    job_bytes=1.1 * GIB,
    feature_bytes=GIB / 64,
    overheads={"job_bytes": 0.1 * GIB},
)
IMAGES: dict[str, Any] = {"size": (160, 320), "train_images": 256, "val_images": 64}


def hardware(**there: float) -> Hardware:
    return Hardware(device="cpu", cores=2, gpus=0, workers=2, threads=1).model_copy(update=there)


def room(**there: float) -> Room:
    return Room(hardware(**there), SPEED, **IMAGES)


def plan(budget: str, image_scale: float | None = None, **there: float) -> Any:
    options = SearchOptions(budget=budget, image_scale=image_scale)
    return derive_plan(options, SPEED, hardware(**there), references=2, **IMAGES)


def test_a_job_takes_its_step_with_a_margin_its_images_and_its_process() -> None:
    images = (256 + 64) * 160 * 320 * 4
    assert room().job_bytes(1) == pytest.approx(PROCESS_BYTES + images + 1.3 * 4.1 * GIB)
    assert room(gpus_per_trial=0.5).job_bytes(0.5) == pytest.approx(PROCESS_BYTES + 1.3 * 1.1 * GIB)
    many = Room(hardware(), SPEED, size=(1024, 2048), train_images=2975, val_images=10)
    kept = GIB + 10 * 1024 * 2048 * 4
    assert many.job_bytes(1) == pytest.approx(PROCESS_BYTES + kept + 1.3 * 4.1 * GIB)


def test_as_many_jobs_fit_as_memory_suffices_for() -> None:
    needed = room().job_bytes(0.5)
    assert [room(memory_bytes=factor * needed).jobs(0.5) for factor in (0.99, 1.01, 3.5)] == [0, 1, 3]
    assert math.isinf(room().jobs(0.5))
    with pytest.raises(ValueError, match=r"2 jobs at once on images at 0\.5 .* take 3\.87 GiB of memory, but 3 GiB"):
        room(memory_bytes=3 * GIB).require(0.5, 2)


def test_what_a_gpu_has_left_beside_its_jobs_is_for_features_that_stay_there() -> None:
    job = room(gpus_per_trial=0.5).job_bytes(0.5)
    free = {"gpus_per_trial": 0.5, "memory_bytes": 2 * job + 3000}
    assert room(**free).spare_bytes(0.5) == 1500
    assert room(**free, workers=1).spare_bytes(0.5) == pytest.approx(job + 3000, abs=1)
    assert room(**free | {"memory_bytes": job}).spare_bytes(0.5) == 0
    assert room(memory_bytes=10 * job).spare_bytes(0.5) == 0, "without a GPU, they are read from the disk's cache"
    assert room(gpus_per_trial=0.5).spare_bytes(0.5) == 0


def test_the_disk_bounds_the_views() -> None:
    images = {views: (views * 256 + 64) * GIB / 64 for views in (1, 3)}
    assert room().views(0.5, 4) == 4
    for views, stored in images.items():
        assert room(disk_bytes=stored / 0.9 + 1).views(0.5, 4) == views
        assert room(disk_bytes=stored / 0.9 - GIB).views(0.5, 4) == views - 1
    assert room(disk_bytes=images[1] / 2).views(0.25, 4) == 2, "features of smaller images are smaller"


@pytest.mark.parametrize("there", [{"memory_bytes": 2.5 * GIB}, {"disk_bytes": 3.0 * GIB}])
def test_images_are_as_large_as_memory_and_disk_allow(there: dict[str, float]) -> None:
    assert plan("8h").image_scale == 1
    smaller = plan("8h", **there)
    assert room(**there).lack(smaller.image_scale) is None
    assert smaller.image_scale == max(scale for scale in IMAGE_SCALES if room(**there).lack(scale) is None)
    assert smaller.image_scale < 1
    assert smaller.views == room(**there).views(smaller.image_scale, 4)


@pytest.mark.parametrize("budget", ["8h", "40trials"])
def test_what_does_not_fit_is_refused(budget: str) -> None:
    with pytest.raises(ValueError, match=r"1 job on images at 1 of .* takes 5\.88 GiB of memory, but 2 GiB"):
        plan(budget, image_scale=1, memory_bytes=2 * GIB)
    with pytest.raises(ValueError, match=r"features of images at 1 of .* take 20 GiB, but 4 GiB of the disk are free"):
        plan(budget, image_scale=1, disk_bytes=4 * GIB)
    with pytest.raises(ValueError, match=r"images at 0\.25 of their size"):
        plan("8h", memory_bytes=0.5 * GIB)


def test_fewer_jobs_share_a_gpu_or_the_cores() -> None:
    gpus = Hardware(device="cuda", cores=16, gpus=2, workers=8, threads=2, gpus_per_trial=0.25)
    fewer = gpus.with_jobs_together(3)
    assert (fewer.workers, fewer.threads, fewer.workers_together) == (6, 2, 3)
    assert fewer.gpus_per_trial * fewer.workers == pytest.approx(2)
    cpu = Hardware.of(torch.device("cpu"), 16).with_jobs_together(5)
    assert (cpu.workers, cpu.threads, cpu.gpus_per_trial, cpu.workers_together) == (5, 3, 0, 5)


def test_without_a_cluster_all_jobs_share_this_machine() -> None:
    many = Hardware.of(torch.device("cpu"), 2, 16)
    assert (many.threads, many.workers_together) == (1, 16)
    assert many.model_copy(update={"cluster": (Machine(2), Machine(2))}).workers_together == 2


@pytest.mark.parametrize(
    ("machines", "concurrency", "share", "expected"),
    [  # workers, threads, share of a GPU, workers together
        ([Machine(64, 8)] * 8, 64, None, (64, 8, 1.0, 1)),
        ([Machine(64, 8)] * 8, None, None, (256, 2, 0.25, 4)),
        ([Machine(32, 4), Machine(16, 8), Machine(96)], None, 0.5, (24, 1, 0.5, 2)),
        ([Machine(32, 4), Machine(16, 2)], 3, 1.0, (3, 16, 1.0, 1)),
    ],
)
def test_gpus_come_from_the_cluster(
    monkeypatch: pytest.MonkeyPatch,
    machines: list[Machine],
    concurrency: int | None,
    share: float | None,
    expected: tuple[int, int, float, int],
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)  # the machine that begins the search has 8
    found = Hardware.of(torch.device("cuda"), 64, concurrency, share, machines)
    assert (found.workers, found.threads, found.gpus_per_trial, found.workers_together) == expected
    assert found.gpus == sum(machine.gpus for machine in machines)
    with pytest.raises(ValueError, match="the device is cuda:1, but Ray gives out the GPUs of a cluster"):
        Hardware.of(torch.device("cuda:1"), 64, cluster=machines)
    with pytest.raises(ValueError, match="no machine has a GPU"):
        Hardware.of(torch.device("cuda"), 64, cluster=[Machine(8)])
    with pytest.raises(ValueError, match=r"gpus_per_trial is 9, but the device cuda has \d GPUs"):
        Hardware.of(torch.device("cuda"), 64, gpus_per_trial=9, cluster=machines)


@given(
    st.lists(st.builds(Machine, st.integers(1, 16), st.just(0)), min_size=1, max_size=5), st.none() | st.integers(1, 64)
)
def test_the_jobs_of_a_cluster_have_cores(machines: list[Machine], concurrency: int | None) -> None:
    found = Hardware.of(torch.device("cpu"), 1, concurrency, cluster=machines)
    assert found.cores == sum(machine.cores for machine in machines)
    assert found.workers == min(concurrency or found.cores, found.cores)
    assert sum(machine.cores // found.threads for machine in machines) >= found.workers
    assert sum(machine.cores // (found.threads + 1) for machine in machines) < found.workers


def test_free_memory_is_within_the_control_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    cpu = torch.device("cpu")
    assert free_memory_bytes(cpu) == 1000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory_bytes(cpu) == 1000
    (tmp_path / "memory.max").write_text("600\n")
    (tmp_path / "memory.current").write_text("500\n")
    (tmp_path / "memory.stat").write_text("anon 250\ninactive_file 200\n")
    assert free_memory_bytes(cpu) == 300, "a file's pages that are only kept are given back"
