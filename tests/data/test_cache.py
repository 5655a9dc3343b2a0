import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch

from nasseg.data import CacheWriter, FeatureCache

KEY = {"weights": "abc", "size": [4, 6]}
MAPS = Path("/proc/self/maps")
SAMPLES, VIEWS = 5, 3
FEATURES = torch.arange(VIEWS * SAMPLES * 2 * 2 * 3).reshape(VIEWS, SAMPLES, 2, 2, 3) / 4
MASKS = (torch.arange(VIEWS * SAMPLES).reshape(VIEWS, SAMPLES, 1, 1) + torch.arange(24).reshape(4, 6)) % 256

BUILDER = """
import sys, time
from pathlib import Path
import torch
from nasseg.data import FeatureCache

folder, log, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

def build(writer):
    for i in range(4):
        writer.add({"backbone": torch.full((1, 2, 2, 2), i / 2)}, torch.full((1, 4, 4), i))
        with log.open("a") as file:
            file.write("added\\n")
        time.sleep(pause)

cache = FeatureCache.open_or_build(folder, {"weights": 1}, build)
print(cache.samples)
"""


def build(writer: CacheWriter) -> None:
    for view in range(VIEWS):
        for rows in (slice(0, 2), slice(2, 5)):
            writer.add(
                {"backbone.a": FEATURES[view, rows], "backbone.b": -FEATURES[view, rows, :1]}, MASKS[view, rows], view
            )


def never(writer: CacheWriter) -> None:
    pytest.fail("the cache was built again")


def start_builder(folder: Path, log: Path, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(folder), str(log), str(pause)], stdout=subprocess.PIPE, text=True
    )


def test_first_views_come_back_in_order(tmp_path: Path) -> None:
    FeatureCache.open_or_build(tmp_path, KEY, build)
    cache = FeatureCache.open_or_build(tmp_path, KEY, never)
    assert (cache.samples, cache.views) == (SAMPLES, VIEWS)
    batches = list(cache.sequential(2))
    assert [len(batch.masks) for batch in batches] == [2, 2, 1]
    assert torch.equal(torch.cat([batch.inputs["backbone.a"] for batch in batches]), FEATURES[0])
    assert torch.equal(torch.cat([batch.inputs["backbone.b"] for batch in batches]), -FEATURES[0, :, :1])
    assert torch.equal(torch.cat([batch.masks for batch in batches]), MASKS[0])


def test_batches_hold_every_sample_each_epoch_in_random_views(tmp_path: Path) -> None:
    cache = FeatureCache.open_or_build(tmp_path, KEY, build)
    seen: Counter[tuple[int, int]] = Counter()
    for batch in islice(cache.batches(SAMPLES, seed=0), 60):
        samples = []
        for features, mask in zip(batch.inputs["backbone.a"], batch.masks, strict=True):
            [(view, sample)] = (features == FEATURES).all(dim=(2, 3, 4)).nonzero().tolist()
            assert torch.equal(mask, MASKS[view, sample])
            samples.append(sample)
            seen[view, sample] += 1
        assert sorted(samples) == list(range(SAMPLES))
    assert len(seen) == VIEWS * SAMPLES


def test_a_resumed_run_sees_the_same_batches(tmp_path: Path) -> None:
    cache = FeatureCache.open_or_build(tmp_path, KEY, build)
    before = torch.get_rng_state()
    whole = list(islice(cache.batches(7, seed=3), 6))
    rest = list(islice(cache.batches(7, seed=3, start_step=4), 2))
    assert torch.equal(before, torch.get_rng_state())
    for expected, batch in zip(whole[4:], rest, strict=True):
        assert torch.equal(expected.inputs["backbone.a"], batch.inputs["backbone.a"])
        assert torch.equal(expected.masks, batch.masks)
    other = next(cache.batches(7, seed=4))
    assert not torch.equal(whole[0].masks, other.masks)


@pytest.mark.skipif(not MAPS.exists(), reason="the system does not list what a process maps into memory")
def test_files_are_mapped_read_only_and_shared(tmp_path: Path) -> None:
    cache = FeatureCache.open_or_build(tmp_path, KEY, build)
    mapped = [line.split() for line in MAPS.read_text().splitlines() if str(cache.folder) in line]
    assert {Path(path) for *_, path in mapped} == set(cache.folder.glob("*.bin"))
    assert {permissions for _, permissions, *_ in mapped} == {"r--s"}


def test_other_keys_are_other_caches(tmp_path: Path) -> None:
    first = FeatureCache.open_or_build(tmp_path, KEY, build)
    assert FeatureCache.open_or_build(tmp_path, KEY | {"weights": "abd"}, build).folder != first.folder
    assert FeatureCache.open_or_build(tmp_path, dict(reversed(KEY.items())), never).folder == first.folder
    assert json.loads((first.folder / "index.json").read_text())["key"] == KEY


def test_a_full_disk_is_an_os_error_that_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        FeatureCache.open_or_build(tmp_path, KEY, build)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
def test_a_write_that_fails_is_an_os_error_that_leaves_nothing(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            FeatureCache.open_or_build(
                tmp_path, KEY, lambda writer: writer.add({"x": torch.ones(1, 200_000)}, MASKS[0])
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_samples_of_other_shapes_are_refused(tmp_path: Path) -> None:
    def wrong(writer: CacheWriter) -> None:
        writer.add({"x": torch.zeros(1, 2, 2, 2)}, torch.zeros(1, 4, 4))
        writer.add({"x": torch.zeros(1, 2, 2, 3)}, torch.zeros(1, 4, 4))

    with pytest.raises(ValueError, match="must have those of the first"):
        FeatureCache.open_or_build(tmp_path, KEY, wrong)


@pytest.mark.parametrize(
    ("views", "expected"), [([1], "0 is the next"), ([0, 1, 0], "must come in order"), ([], "above 0")]
)
def test_views_must_be_whole_and_in_order(tmp_path: Path, views: list[int], expected: str) -> None:
    def wrong(writer: CacheWriter) -> None:
        for view in views:
            writer.add({"x": torch.zeros(1, 2)}, torch.zeros(1, 4, 4), view)

    with pytest.raises(ValueError, match=expected):
        FeatureCache.open_or_build(tmp_path, KEY, wrong)


def test_views_of_different_length_are_refused(tmp_path: Path) -> None:
    def wrong(writer: CacheWriter) -> None:
        for view in (0, 0, 1):
            writer.add({"x": torch.zeros(1, 2)}, torch.zeros(1, 4, 4), view)

    with pytest.raises(ValueError, match=r"\[2, 1\]"):
        FeatureCache.open_or_build(tmp_path, KEY, wrong)


@pytest.mark.slow
def test_of_two_processes_one_builds_and_both_read(tmp_path: Path) -> None:
    builders = [start_builder(tmp_path / "features", tmp_path / "log", 0.1) for _ in range(2)]
    assert [builder.communicate(timeout=60)[0] for builder in builders] == ["4\n", "4\n"]
    assert (tmp_path / "log").read_text() == "added\n" * 4


@pytest.mark.slow
def test_a_build_killed_while_writing_is_never_read_and_is_cleaned(tmp_path: Path) -> None:
    folder, log = tmp_path / "features", tmp_path / "log"
    builder = start_builder(folder, log, 60)
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    builder.kill()
    builder.communicate()
    assert len(list(folder.glob("*.partial"))) == 1

    FeatureCache.open_or_build(folder, {"weights": 2}, build)
    assert not list(folder.glob("*.partial"))
    assert start_builder(folder, log, 0).communicate(timeout=60)[0] == "4\n"
    assert log.read_text() == "added\n" * 5
