import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nasseg.data import Batch, Block, FeatureCache
from nasseg.data.cache import Compute
from nasseg.data.resident import ResidentFeatures

KEY = {"weights": "abc", "size": [4, 6]}
MAPS = Path("/proc/self/maps")
SAMPLES, VIEWS, BLOCK = 5, 3, 2
BLOCKS = [Block(view, start, stop) for view in range(VIEWS) for start, stop in ((0, 2), (2, 4), (4, 5))]
FEATURES = torch.arange(VIEWS * SAMPLES * 2 * 2 * 3).reshape(VIEWS, SAMPLES, 2, 2, 3) / 4
MASKS = (torch.arange(VIEWS * SAMPLES).reshape(VIEWS, SAMPLES, 1, 1) + torch.arange(24).reshape(4, 6)) % 256

WORKER = """
import sys, time
from pathlib import Path
import torch
from nasseg.data import FeatureCache

folder, log, hang_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def compute(block):
    with log.open("a") as file:
        file.write(f"{block.start}\\n")
    time.sleep(60 if block.start == hang_at else 0.05)
    return {"backbone": torch.full((1, 2, 2, 2), block.start / 2)}, torch.full((1, 4, 4), block.start)

cache = FeatureCache.open_or_fill(folder, {"weights": 1}, 1, 4, 1, compute)
(batch,) = cache.sequential(4)
print(batch.inputs["backbone"][:, 0, 0, 0].tolist(), batch.masks[:, 0, 0].tolist())
"""
WHOLE = "[0.0, 0.5, 1.0, 1.5] [0, 1, 2, 3]\n"


def compute(block: Block) -> tuple[dict[str, Tensor], Tensor]:
    view, rows = block.view, slice(block.start, block.stop)
    return {"backbone.a": FEATURES[view, rows], "backbone.b": -FEATURES[view, rows, :1]}, MASKS[view, rows]


def never(block: Block) -> tuple[dict[str, Tensor], Tensor]:
    pytest.fail("features were computed again")


def opened(folder: Path, compute: Compute = compute, key: dict[str, object] = KEY) -> FeatureCache:  # type: ignore[assignment]
    return FeatureCache.open_or_fill(folder, key, VIEWS, SAMPLES, BLOCK, compute)


def start_worker(folder: Path, log: Path, hang_at: int = -1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(folder), str(log), str(hang_at)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_first_views_come_back_in_order(tmp_path: Path) -> None:
    opened(tmp_path)
    cache = opened(tmp_path, never)
    assert (cache.samples, cache.views) == (SAMPLES, VIEWS)
    assert cache.nbytes == VIEWS * SAMPLES * (2 * (12 + 6) + 24)
    batches = list(cache.sequential(2))
    assert [len(batch.masks) for batch in batches] == [2, 2, 1]
    assert torch.equal(torch.cat([batch.inputs["backbone.a"] for batch in batches]), FEATURES[0])
    assert torch.equal(torch.cat([batch.inputs["backbone.b"] for batch in batches]), -FEATURES[0, :, :1])
    assert torch.equal(torch.cat([batch.masks for batch in batches]), MASKS[0])


def test_batches_hold_every_sample_each_epoch_in_random_views(tmp_path: Path) -> None:
    cache = opened(tmp_path)
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
    cache = opened(tmp_path)
    before = torch.get_rng_state()
    whole = list(islice(cache.batches(7, seed=3), 6))
    rest = list(islice(cache.batches(7, seed=3, start_step=4), 2))
    assert torch.equal(before, torch.get_rng_state())
    assert_equal(whole[4:], rest)
    other = next(cache.batches(7, seed=4))
    assert not torch.equal(whole[0].masks, other.masks)


def assert_equal(some: list[Batch], others: list[Batch]) -> None:
    for one, other in zip(some, others, strict=True):
        assert list(one.inputs) == list(other.inputs)
        torch.testing.assert_close(one.inputs, other.inputs, rtol=0, atol=0)
        assert torch.equal(one.masks, other.masks)


def test_on_a_device_the_same_batches_are_gathered_channels_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nasseg.data.resident.STEPS_DRAWN", 3)
    monkeypatch.setattr("nasseg.data.resident.COPIED_BYTES", 100)
    cache = opened(tmp_path)
    resident = ResidentFeatures(cache, torch.device("cpu"))
    found = list(islice(resident.batches(7, seed=3, start_step=2), 8))
    assert_equal(found, list(islice(cache.batches(7, seed=3, start_step=2), 8)))
    assert_equal(list(resident.sequential(2)), list(cache.sequential(2)))
    features = found[0].inputs["backbone.a"]
    assert features.dtype == torch.float32
    assert features.is_contiguous(memory_format=torch.channels_last)
    assert found[0].masks.is_contiguous()


@pytest.mark.skipif(not MAPS.exists(), reason="the system does not list what a process maps into memory")
def test_files_are_mapped_read_only_and_shared(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    mapped = [line.split() for line in MAPS.read_text().splitlines() if str(cache.folder) in line]
    assert {Path(path) for *_, path in mapped} == {cache.folder / f"{number}.bin" for number in range(3)}
    assert {permissions for _, permissions, *_ in mapped} == {"r--s"}


def test_other_keys_are_other_caches(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert opened(tmp_path, key=KEY | {"weights": "abd"}).folder != first.folder
    assert opened(tmp_path, never, key=dict(reversed(KEY.items()))).folder == first.folder
    assert json.loads((first.folder / "index.json").read_text())["key"] == KEY


def test_what_was_interrupted_goes_on_at_the_next_block(tmp_path: Path) -> None:
    done: list[Block] = []

    def interrupted(block: Block) -> tuple[dict[str, Tensor], Tensor]:
        if block == BLOCKS[4]:
            raise KeyboardInterrupt
        done.append(block)
        return compute(block)

    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, interrupted)
    assert done == BLOCKS[:4]
    with pytest.raises(ValueError, match="features are incomplete"):
        FeatureCache(next(tmp_path.glob("*[0-9a-f]")))

    def recorded(block: Block) -> tuple[dict[str, Tensor], Tensor]:
        done.append(block)
        return compute(block)

    assert_equal(list(opened(tmp_path, recorded).sequential(5)), list(opened(tmp_path / "at once").sequential(5)))
    assert done == BLOCKS


def test_a_worker_takes_the_blocks_that_no_other_holds(tmp_path: Path) -> None:
    """One is held up in its first block; the other computes the rest, waits for that block, and may stop waiting."""
    started, go_on, done = threading.Event(), threading.Event(), list[Block]()
    found: list[FeatureCache] = []

    def slow(block: Block) -> tuple[dict[str, Tensor], Tensor]:
        started.set()
        assert go_on.wait(10)
        return compute(block)

    def recorded(block: Block) -> tuple[dict[str, Tensor], Tensor]:
        done.append(block)
        return compute(block)

    def stop_if_all_else_is_done() -> None:
        if len(done) == len(BLOCKS) - 1:
            raise KeyboardInterrupt

    other = threading.Thread(target=lambda: found.append(opened(tmp_path, slow)))
    other.start()
    assert started.wait(10)
    with pytest.raises(KeyboardInterrupt):
        FeatureCache.open_or_fill(tmp_path, KEY, VIEWS, SAMPLES, BLOCK, recorded, stop_if_all_else_is_done)
    assert done == BLOCKS[1:]
    go_on.set()
    assert_equal(list(opened(tmp_path, never).sequential(5)), list(opened(tmp_path / "alone").sequential(5)))
    other.join(10)
    assert found
    assert not list(tmp_path.glob("*.blocks")), "locks are left"


def test_a_full_disk_is_an_os_error_after_which_no_block_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            opened(tmp_path)
    done: list[Block] = []

    def recorded(block: Block) -> tuple[dict[str, Tensor], Tensor]:
        done.append(block)
        return compute(block)

    opened(tmp_path, recorded)
    assert done == BLOCKS


def test_a_disk_without_room_for_all_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nasseg.run_folder.free_disk_bytes", lambda folder: 600)
    with pytest.raises(OSError, match="No space left"):
        opened(tmp_path)
    assert not [path for path in tmp_path.glob("*[0-9a-f]") if path.is_dir()]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
def test_files_that_cannot_be_made_are_an_os_error_that_leaves_none(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            FeatureCache.open_or_fill(
                tmp_path, KEY, 1, 1, 1, lambda block: ({"x": torch.ones(1, 200_000)}, MASKS[0, :1])
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not [path for path in tmp_path.glob("*[0-9a-f]") if path.is_dir()]


def test_samples_of_other_shapes_are_refused(tmp_path: Path) -> None:
    def wrong(block: Block) -> tuple[dict[str, Tensor], Tensor]:
        width = 3 if block.start else 2
        return {"x": torch.zeros(1, 2, 2, width)}, torch.zeros(1, 4, 4)

    with pytest.raises(ValueError, match="must have those of the first"):
        FeatureCache.open_or_fill(tmp_path, KEY, 1, 2, 1, wrong)


def test_blocks_must_be_whole(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="block 0 has 1 samples, but must have 2"):
        FeatureCache.open_or_fill(
            tmp_path, KEY, 1, 2, 2, lambda block: ({"x": torch.zeros(1, 2)}, torch.zeros(1, 4, 4))
        )
    with pytest.raises(ValueError, match="there must be at least one"):
        FeatureCache.open_or_fill(tmp_path, KEY, 1, 0, 2, never)


@pytest.mark.slow
def test_processes_share_the_blocks(tmp_path: Path) -> None:
    workers = [start_worker(tmp_path / "features", tmp_path / "log") for _ in range(2)]
    assert [worker.communicate(timeout=60)[0] for worker in workers] == [WHOLE, WHOLE]
    assert sorted((tmp_path / "log").read_text().split()) == ["0", "1", "2", "3"]


@pytest.mark.slow
def test_a_block_of_a_killed_worker_is_computed_by_another(tmp_path: Path) -> None:
    folder, log = tmp_path / "features", tmp_path / "log"
    killed = start_worker(folder, log, hang_at=2)
    deadline = time.monotonic() + 60
    while (not log.exists() or "2" not in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    waiting = start_worker(folder, log)
    while "3" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    assert waiting.communicate(timeout=60)[0] == WHOLE
    assert log.read_text().split() == ["0", "1", "2", "3", "2"]
