"""Features computed once and shared by all trials on a machine through memory mapping."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import Annotated, BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from torch import Tensor

from nasseg.data.batches import Batch, seeded, shuffled
from nasseg.foreign import damaged, read_json

STORED_BYTES = 2
"""Of a feature, which is stored in half precision."""

_INDEX = "index.json"
_MASKS = "<masks>"  # no name that a node can have


Count = Annotated[int, Field(ge=1, le=1 << 24)]


class _Index(BaseModel):
    """The content of a cache: `shapes` of a sample's features by node name, and of its mask."""

    model_config = ConfigDict(extra="forbid")

    key: dict[str, JsonValue]
    views: Count
    samples: Count
    shapes: dict[str, Annotated[tuple[Count, ...], Field(max_length=3)]]


class CacheWriter:
    """A writer of a data set's features, batch after batch; it holds one batch in memory."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self._folder = folder
        self._stack = files
        self._files: dict[str, BinaryIO] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._samples_by_view: list[int] = []

    @property
    def is_empty(self) -> bool:
        """Whether no sample was added yet."""
        return not self._samples_by_view

    def add(self, features: Mapping[str, Tensor], masks: Tensor, view: int = 0) -> None:
        """Append the next samples of a view: `features` by node name, each (N, C, h, w), and `masks` (N, H, W).

        Views come one after the other, each with all samples in the same order. Features are kept as float16, masks
        as uint8. Raises `ValueError` if samples differ in size.
        """
        arrays = {name: tensor.detach().to("cpu", torch.float16).numpy() for name, tensor in features.items()}
        arrays[_MASKS] = masks.detach().to("cpu", torch.uint8).numpy()
        shapes = {name: array.shape[1:] for name, array in arrays.items()}
        if not self._files:
            self._shapes = shapes
            for index, name in enumerate(arrays):
                self._files[name] = self._stack.enter_context((self._folder / _file(index)).open("wb"))
        if shapes != self._shapes:
            raise ValueError(f"cached samples have shapes {shapes}, but must have those of the first, {self._shapes}")
        if view not in (len(self._samples_by_view) - 1, len(self._samples_by_view)):
            raise ValueError(f"view is {view}, but views must come in order: {len(self._samples_by_view)} is the next")
        if view == len(self._samples_by_view):
            self._samples_by_view.append(0)
        self._samples_by_view[view] += len(masks)
        for name, array in arrays.items():
            self._files[name].write(np.ascontiguousarray(array).data)

    def finish(self, key: Mapping[str, object]) -> None:
        """Write the index, once every view has all samples."""
        if len(set(self._samples_by_view)) != 1:
            raise ValueError(f"views have {self._samples_by_view} samples, but must all have the same number, above 0")
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        views, samples = len(self._samples_by_view), self._samples_by_view[0]
        index = _Index(key=dict(key), views=views, samples=samples, shapes=self._shapes)
        (self._folder / _INDEX).write_text(index.model_dump_json(), encoding="utf-8")


class FeatureCache:
    """Read-only arrays in files, mapped into memory: processes that open the same cache share its pages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with damaged(folder, "remove it, and the features are computed again"):
            index = _Index.model_validate(read_json(folder / _INDEX, "features are incomplete"))
            self.views, self.samples = index.views, index.samples
            self._arrays = {
                name: _mapped(folder / _file(number), name, (self.views, self.samples, *shape))
                for number, (name, shape) in enumerate(index.shapes.items())
            }
            self._arrays[_MASKS]

    @classmethod
    def open_or_build(
        cls, folder: str | Path, key: Mapping[str, object], build: Callable[[CacheWriter], None]
    ) -> "FeatureCache":
        """Open the cache of `key` below `folder`; `build` builds it first unless it exists.

        `key` names everything that the content depends on (JSON values). Built as by `built_once`.
        """

        def fill(target: Path) -> None:
            with ExitStack() as files:
                writer = CacheWriter(target, files)
                build(writer)
                writer.finish(key)

        return cls(built_once(folder, key, fill))

    def batches(
        self, batch_size: int, seed: int, start_step: int = 0, device: torch.device | str = "cpu"
    ) -> Iterator[Batch]:
        """Yield endless batches of shuffled samples, each in a random view, from `seed` and the step alone."""
        for step, samples in zip(count(start_step), shuffled(self.samples, batch_size, seed, start_step), strict=False):
            views = torch.randint(self.views, (batch_size,), generator=seeded(seed, step, 1))
            yield self._batch((views.numpy(), np.array(samples)), device)

    def sequential(self, batch_size: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Yield the first view of every sample once, in order."""
        for start in range(0, self.samples, batch_size):
            yield self._batch((0, slice(start, start + batch_size)), device)

    def _batch(self, at: tuple[int | NDArray[np.int_], slice | NDArray[np.int_]], device: torch.device | str) -> Batch:
        rows = {name: torch.from_numpy(np.array(array[at])).to(device) for name, array in self._arrays.items()}
        masks = rows.pop(_MASKS)
        return Batch({name: features.float() for name, features in rows.items()}, masks.long())


def built_once(folder: str | Path, key: Mapping[str, object], fill: Callable[[Path], None]) -> Path:
    """Return the folder of `key` below `folder`, which `fill` fills first unless it exists.

    If several processes ask at once, one builds and the others wait. The folder appears whole or not at all: a build
    that is killed leaves nothing that is ever read, and one that fails (`OSError` if the disk is full) removes what it
    wrote.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    if not target.exists():
        with FileLock(_lock(target)):
            if not target.exists():
                _remove_stale(folder, target)
                _build(target, fill)
    return target


def _mapped(path: Path, name: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    kind: np.dtype[np.generic] = np.dtype(np.uint8 if name == _MASKS else np.float16)
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
