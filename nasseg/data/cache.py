"""Features computed once, by all processes of a machine together, and shared by them through memory mapping."""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from torch import Tensor

from nasseg.data.ahead import in_order
from nasseg.data.augment import moved
from nasseg.data.batches import Batch, seeded, shuffled
from nasseg.foreign import damaged, read_json
from nasseg.graph import write_atomically
from nasseg.run_folder import require_disk

STORED_BYTES = 2
"""Of a feature, which is stored in half precision."""
WAIT_SECONDS = 0.1
"""How often a process looks whether the blocks that others compute are there."""

_INDEX, _WRITTEN = "index.json", "written.bin"
_MARK = b"\1"
"""Of a block that is whole in the files of a cache, at its place in `_WRITTEN`."""
_MASKS = "<masks>"  # no name that a node can have


Count = Annotated[int, Field(ge=1, le=1 << 24)]


class _Index(BaseModel):
    """The content of a cache: `shapes` of a sample's features by node name, and of its mask."""

    model_config = ConfigDict(extra="forbid")

    key: dict[str, JsonValue]
    views: Count
    samples: Count
    blocks: Count
    shapes: dict[str, Annotated[tuple[Count, ...], Field(max_length=3)]]


class Block(NamedTuple):
    """The samples from `start` to before `stop` in one view, which one process computes at a time."""

    view: int
    start: int
    stop: int


Compute = Callable[[Block], tuple[Mapping[str, Tensor], Tensor]]
"""Computes a block: its features by node name, each (N, C, h, w), and its masks (N, H, W)."""


class FeatureCache:
    """Read-only arrays in files, mapped into memory: processes that open the same cache share its pages.

    Features are kept as float16, masks as uint8. All views of a sample lie in the files, a view after the other.
    """

    def __init__(self, folder: Path) -> None:
        """Open a cache that is complete; raises `ValueError` for any other."""
        self.folder = folder
        with damaged(folder, "remove it, and the features are computed again"):
            index = _read_index(folder)
            if (folder / _WRITTEN).read_bytes() != index.blocks * _MARK:
                raise ValueError("features are incomplete")
            self.views, self.samples = index.views, index.samples
            self.arrays = {
                name: _mapped(folder / _file(number), name, (self.views * self.samples, *shape))
                for number, (name, shape) in enumerate(index.shapes.items())
            }
            self.arrays[_MASKS]

    @property
    def nbytes(self) -> int:
        """The bytes of all features and masks."""
        return sum(array.nbytes for array in self.arrays.values())

    @classmethod
    def open_or_fill(
        cls,
        folder: str | Path,
        key: Mapping[str, object],
        views: int,
        samples: int,
        block_samples: int,
        compute: Compute,
        before_block: Callable[[], object] = lambda: None,
    ) -> "FeatureCache":
        """Open the cache of `key` below `folder`, once all of its blocks are there.

        `key` names everything that the content depends on (JSON values). A block has `block_samples` of a view, or
        those that are left. Each process that asks for an unfinished cache computes the blocks that nobody has
        computed or is computing, and waits only for those of others that live. A kill leaves no part of a block that
        is ever read, and all blocks that were written.

        `before_block` is called before each block and while waiting, and may raise to stop. Raises `OSError` if the
        disk is full, before anything is written if it has no room for the whole cache, and `ValueError` if samples
        differ in size.
        """
        filling = _Filling(Path(folder), key, views, samples, block_samples)
        while missing := filling.missing():
            took = False
            for number in missing:
                before_block()
                took = filling.take(number, compute) or took
            if not took:
                time.sleep(WAIT_SECONDS)
        return cls(filling.target)

    def batches(
        self, batch_size: int, seed: int, start_step: int = 0, device: torch.device | str = "cpu"
    ) -> Iterator[Batch]:
        """Yield endless batches of shuffled samples, each in a random view, from `seed` and the step alone.

        For a GPU, a thread gathers them ahead.
        """
        device = torch.device(device)
        readers = 0 if device.type == "cpu" else 1
        yield from in_order(lambda rows: self._batch(rows, device), self.drawn(batch_size, seed, start_step), readers)

    def sequential(self, batch_size: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Yield the first view of every sample once, in order."""
        for start in range(0, self.samples, batch_size):
            yield self._batch(slice(start, min(start + batch_size, self.samples)), torch.device(device))

    def drawn(self, batch_size: int, seed: int, start_step: int = 0) -> Iterator[NDArray[np.int_]]:
        """Yield the places in the arrays of each step's samples."""
        for step, samples in zip(count(start_step), shuffled(self.samples, batch_size, seed, start_step), strict=False):
            views = torch.randint(self.views, (batch_size,), generator=seeded(seed, step, 1))
            yield views.numpy() * self.samples + np.array(samples)

    def _batch(self, at: slice | NDArray[np.int_], device: torch.device) -> Batch:
        rows = {name: moved(torch.from_numpy(np.array(array[at])), device) for name, array in self.arrays.items()}
        return as_batch(rows)


def as_batch(rows: dict[str, Tensor]) -> Batch:
    """Make a batch of what is stored of its samples."""
    masks = rows.pop(_MASKS)
    return Batch({name: features.float() for name, features in rows.items()}, masks.long())


class _Filling:
    """The work of all processes on the blocks of a cache, each of which is written by one of them.

    A block's lock is held by the process that computes it, and ends with that process. The files have their full size
    from the first block on. A block's mark follows its content to the disk.
    """

    def __init__(self, folder: Path, key: Mapping[str, object], views: int, samples: int, block_samples: int) -> None:
        self.target = place_of(folder, key)
        self._key, self._views, self._samples = key, views, samples
        starts = range(0, samples, block_samples)
        self._blocks = [
            Block(view, start, min(start + block_samples, samples)) for view in range(views) for start in starts
        ]
        if not self._blocks:
            raise ValueError(f"features of {views} views of {samples} samples are none; there must be at least one")
        self._locks = self.target.with_name(self.target.name + ".blocks")

    def missing(self) -> list[int]:
        """List the blocks that are not written; once there are none, their locks are removed."""
        marks = self._marks()
        missing = [number for number in range(len(self._blocks)) if marks[number : number + 1] != _MARK]
        if not missing:
            shutil.rmtree(self._locks, ignore_errors=True)
        return missing

    def take(self, number: int, compute: Compute) -> bool:
        """Compute and write a block, unless another process does or has; returns whether it was written here."""
        self._locks.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(self._locks / str(number)).acquire(timeout=0)
        except (Timeout, FileNotFoundError):  # where the folder of locks is gone, all blocks are written
            return False
        with lock:
            if self._marks()[number : number + 1] == _MARK:
                return False
            self._write(number, *compute(self._blocks[number]))
        return True

    def _marks(self) -> bytes:
        return (self.target / _WRITTEN).read_bytes() if self.target.exists() else b""

    def _write(self, number: int, features: Mapping[str, Tensor], masks: Tensor) -> None:
        view, start, stop = self._blocks[number]
        arrays: dict[str, NDArray[np.generic]] = {
            name: tensor.detach().to("cpu", torch.float16).numpy() for name, tensor in features.items()
        }
        arrays[_MASKS] = masks.detach().to("cpu", torch.uint8).numpy()
        shapes = {name: array.shape[1:] for name, array in arrays.items()}
        if {len(array) for array in arrays.values()} != {stop - start}:
            raise ValueError(f"block {number} has {len(masks)} samples, but must have {stop - start}")
        built_once(self.target.parent, self._key, lambda folder: self._lay_out(folder, shapes))
        with damaged(self.target, "remove it, and the features are computed again"):
            first = _read_index(self.target).shapes
        if shapes != first:
            raise ValueError(f"cached samples have shapes {shapes}, but must have those of the first, {first}")
        for place, name in enumerate(first):
            array = arrays[name]
            _put(self.target / _file(place), array, (view * self._samples + start) * array[0].nbytes)
        _put(self.target / _WRITTEN, np.frombuffer(_MARK, np.uint8), number)

    def _lay_out(self, folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
        """Make the files of a cache without blocks."""
        rows = self._views * self._samples
        sizes = [rows * math.prod(shape) * _kind(name).itemsize for name, shape in shapes.items()]
        require_disk(self.target.parent, sum(sizes))
        for place, size in enumerate(sizes):
            _make(folder / _file(place), size)
        _make(folder / _WRITTEN, len(self._blocks))
        index = _Index(
            key=dict(self._key), views=self._views, samples=self._samples, blocks=len(self._blocks), shapes=shapes
        )
        write_atomically(folder / _INDEX, index.model_dump_json())


def built_once(folder: str | Path, key: Mapping[str, object], fill: Callable[[Path], None]) -> Path:
    """Return the folder of `key` below `folder`, which `fill` fills first unless it exists.

    If several processes ask at once, one builds and the others wait. The folder appears whole or not at all: a build
    that is killed leaves nothing that is ever read, and one that fails (`OSError` if the disk is full) removes what it
    wrote.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    target = place_of(folder, key)
    if not target.exists():
        with FileLock(_lock(target)):
            if not target.exists():
                _remove_stale(folder, target)
                _build(target, fill)
    return target


def place_of(folder: Path, key: Mapping[str, object]) -> Path:
    """The folder that `built_once` returns, which may not be there yet."""
    return folder / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _read_index(folder: Path) -> _Index:
    return _Index.model_validate(read_json(folder / _INDEX, "features are incomplete"))


def _kind(name: str) -> np.dtype[np.generic]:
    return np.dtype(np.uint8 if name == _MASKS else np.float16)


def _make(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _put(path: Path, array: NDArray[np.generic], offset: int) -> None:
    """Write an array into a file, and wait until it is on the disk."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(np.ascontiguousarray(array).data)
        file.flush()
        os.fsync(file.fileno())


def _mapped(path: Path, name: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    kind = _kind(name)
    if path.stat().st_size != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{path.name} has another size than its index tells")
    return np.memmap(path, kind, mode="r", shape=shape)


def _build(target: Path, fill: Callable[[Path], None]) -> None:
    partial = _partial(target)
    partial.mkdir()
    try:
        fill(partial)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _remove_stale(folder: Path, locked: Path) -> None:
    """Remove what killed builds left: the partial caches of `locked`, whose lock is held here, and of free locks."""
    shutil.rmtree(_partial(locked), ignore_errors=True)
    for partial in folder.glob("*.partial"):
        with suppress(Timeout), FileLock(_lock(partial.with_suffix("")), timeout=0):
            shutil.rmtree(partial, ignore_errors=True)


def _partial(target: Path) -> Path:
    return target.with_name(target.name + ".partial")


def _lock(target: Path) -> Path:
    return target.with_name(target.name + ".lock")


def _file(number: int) -> str:
    return f"{number}.bin"
