import threading
import time
from contextlib import AbstractContextManager, suppress
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


@pytest.mark.parametrize(("held", "wanted"), [("alone", "shared"), ("alone", "alone"), ("shared", "alone")])
def test_one_that_is_alone_or_wants_to_be_waits_and_keeps_others_waiting(
    lock_file: Path, held: str, wanted: str
) -> None:
    began = threading.Event()

    def come() -> None:
        with hold(DeviceShare(lock_file), wanted):
            began.set()

    coming = threading.Thread(target=come)
    with hold(DeviceShare(lock_file), held):
        coming.start()
        assert not began.wait(BRIEF)
    coming.join(60)
    assert began.is_set()


def hold(share: DeviceShare, way: str) -> AbstractContextManager[None]:
    return share.alone() if way == "alone" else share.beside_others()


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
