import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from filelock import ReadWriteLock, Timeout

from nasseg.jobs.device_share import DeviceShare

BRIEF = 0.2


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    return tmp_path / "device.lock"


def test_jobs_run_beside_each_other(lock_file: Path) -> None:
    first, second = DeviceShare(lock_file), DeviceShare(lock_file)
    with first.beside_others(), second.beside_others():
        pass


@pytest.mark.parametrize("comes_to", ["share", "be alone"])
def test_one_that_is_alone_keeps_others_waiting(lock_file: Path, comes_to: str) -> None:
    first, second, began = DeviceShare(lock_file), DeviceShare(lock_file), threading.Event()

    def come() -> None:
        with second.beside_others() if comes_to == "share" else second.alone():
            began.set()

    coming = threading.Thread(target=come)
    with first.alone():
        coming.start()
        assert not began.wait(BRIEF)
    coming.join(60)
    assert began.is_set()


def test_one_that_wants_to_be_alone_waits_for_the_others(lock_file: Path) -> None:
    first, second, began = DeviceShare(lock_file), DeviceShare(lock_file), threading.Event()

    def come() -> None:
        with second.alone():
            began.set()

    coming = threading.Thread(target=come)
    with first.beside_others():
        coming.start()
        assert not began.wait(BRIEF)
    coming.join(60)
    assert began.is_set()


def test_jobs_that_come_do_not_overtake_one_that_waits_to_be_alone(lock_file: Path) -> None:
    shares, order = [DeviceShare(lock_file) for _ in range(3)], list[str]()

    def be_alone() -> None:
        with shares[1].alone():
            order.append("alone")

    def come() -> None:
        with shares[2].beside_others():
            order.append("later")

    first, second = threading.Thread(target=be_alone), threading.Thread(target=come)
    with shares[0].beside_others():
        first.start()
        wait_until_one_waits(lock_file)
        second.start()
        second.join(BRIEF)
        assert order == []
    first.join(60)
    second.join(60)
    assert order == ["alone", "later"]


def wait_until_one_waits(lock_file: Path) -> None:
    lock = ReadWriteLock(lock_file, is_singleton=False)
    with suppress(Timeout):
        while True:
            with lock.read_lock(timeout=0):
                time.sleep(0.01)


def test_a_failed_job_gives_its_share_back(lock_file: Path) -> None:
    first, second = DeviceShare(lock_file), DeviceShare(lock_file)
    with pytest.raises(torch.OutOfMemoryError), first.beside_others():
        raise torch.OutOfMemoryError
    with second.alone():
        pass


def test_a_processor_is_not_shared_out() -> None:
    cpu = DeviceShare.of(torch.device("cpu"))
    with cpu.alone(), cpu.alone(), cpu.beside_others():
        pass
