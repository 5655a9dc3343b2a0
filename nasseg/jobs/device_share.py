"""Jobs that share a GPU, and one that needs all of its memory."""

from __future__ import annotations

import gc
import getpass
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from filelock import FileLock, ReadWriteLock, Timeout
from typing_extensions import Self


class DeviceShare:
    """A device that jobs of this machine share, whichever process and search they are of.

    One for which the memory does not suffice beside others can have the device to itself for a while. A process that
    dies gives its share back.
    """

    def __init__(self, lock_file: Path | None) -> None:
        """Take the file that stands for the device in all processes, on a disk of this machine; `None` if any has room.

        Raises `OSError` if it cannot be made.
        """
        self._locks: tuple[ReadWriteLock, FileLock] | None = None
        if lock_file is not None:
            # SQLite, by which a `ReadWriteLock` works, lets readers overtake a writer that waits.
            turn = FileLock(lock_file.with_name(f"{lock_file.name}.turn"))
            self._locks = ReadWriteLock(lock_file, is_singleton=False), turn

    @classmethod
    def of(cls, device: torch.device) -> Self:
        """Return the share of a device; a processor's memory is planned for, and what exceeds it is swapped."""
        if device.type != "cuda":
            return cls(None)
        user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()  # in a container, an id may have no name
        folder = Path(tempfile.gettempdir()) / f"nasseg-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        return cls(folder / f"{torch.cuda.get_device_properties(device).uuid}.lock")

    def beside_others(self) -> AbstractContextManager[None]:
        """Hold a share of the device; waits while a job has it to itself."""
        return nullcontext() if self._locks is None else self._shared(*self._locks)

    def alone(self) -> AbstractContextManager[None]:
        """Hold all of the device; waits until no job holds a share of it, and keeps new ones waiting."""
        return nullcontext() if self._locks is None else self._whole(*self._locks)

    @contextmanager
    def _whole(self, lock: ReadWriteLock, turn: FileLock) -> Iterator[None]:
        _give_memory_back()
        with turn, lock.write_lock():
            yield

    @contextmanager
    def _shared(self, lock: ReadWriteLock, turn: FileLock) -> Iterator[None]:
        try:
            with turn.acquire(timeout=0):
                lock.acquire_read(timeout=0)
        except Timeout:  # one has the device to itself, or waits to, and may need what this process keeps for later
            _give_memory_back()
            with turn:
                lock.acquire_read()
        try:
            yield
        finally:
            lock.release()


def _give_memory_back() -> None:
    """Give back to the GPU what PyTorch keeps of its memory without using it."""
    gc.collect()
    torch.cuda.empty_cache()
