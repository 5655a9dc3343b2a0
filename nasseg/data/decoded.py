"""Images and masks decoded once, kept on disk and mapped into the memory of all processes that use them."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from nasseg.data.ahead import in_order
from nasseg.data.cache import built_once, place_of
from nasseg.data.dataset import Sample, Split
from nasseg.foreign import damaged
from nasseg.graph import write_atomically
from nasseg.run_folder import free_disk_bytes, user_cache

logger = logging.getLogger(__name__)

VERSION = 1
"""Part of every key; increased by a change that reads other pixels from the same files."""
SHARE_OF_FREE_DISK = 0.25
UNUSED_DAYS = 30
"""After which decoded images are removed, as others are written."""
CHANNELS = 4
"""Of a stored pixel: three colours and the class."""
_PIXELS, _INDEX = "pixels.bin", "index.json"


class Decoded(Split):
    """A split whose pixels lie decoded in a file, mapped into memory; its samples and fingerprint are the split's."""

    def __init__(self, split: Split, folder: Path) -> None:
        self.name, self.classes, self.ignore_index = split.name, split.classes, split.ignore_index
        self._split = split
        with damaged(folder, "remove it, and the images are decoded again"):
            index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
            self._names: list[str] = index["names"]
            self._sizes: list[tuple[int, int]] = [(height, width) for height, width in index["sizes"]]
            pixels = np.array([0, *(height * width for height, width in self._sizes)], dtype=np.int64)
            self._starts = (CHANNELS * pixels.cumsum()).tolist()
            # Copies of what is written to, which nothing does: tensors cannot be read-only.
            self._pixels = np.memmap(folder / _PIXELS, np.uint8, mode="c")
            if len(self._pixels) != self._starts[-1]:
                raise ValueError(f"{_PIXELS} has another size than its index tells")
        os.utime(folder / _INDEX)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        """Map a sample; its pages are read as they are used."""
        height, width = self._sizes[index]
        start, end = self._starts[index : index + 2]
        planes = torch.from_numpy(self._pixels[start:end]).view(CHANNELS, height, width)
        return Sample(self._names[index], planes[:3], planes[3])

    def size(self, index: int) -> tuple[int, int]:
        """The size that is noted beside the pixels."""
        return self._sizes[index]

    @property
    def fingerprint(self) -> str:
        """The split's own."""
        return self._split.fingerprint

    def check(self) -> None:
        """Check the split itself."""
        self._split.check()


def decoded(
    split: Split, readers: int = 1, most_of_free_disk: float = SHARE_OF_FREE_DISK, folder: Path | None = None
) -> Split:
    """Return the split with its pixels decoded, now by so many `readers` unless an earlier run did.

    Decoded pixels are kept in the user's cache, or in `folder`, for all processes and runs that read the same files.
    Where they are not there, and would take more than `most_of_free_disk`, a share, or cannot be written, the split is
    returned as it is. Raises `ValueError` for damaged ones.
    """
    folder = folder or user_cache() / "images"
    key = {"fingerprint": split.fingerprint, "version": VERSION}
    is_there = place_of(folder, key).exists()
    height, width = (0, 0) if is_there else split.typical_size()
    size = len(split) * height * width * CHANNELS

    def fill(target: Path) -> None:
        logger.info("decoding %d images of %s once, into %s (%d MiB)", len(split), split.name, folder, size >> 20)
        _remove_unused(folder)
        _write(split, target, readers, key)

    if size > most_of_free_disk * free_disk_bytes(folder):
        return split
    try:
        return Decoded(split, built_once(folder, key, fill))
    except OSError as error:
        logger.warning("images are decoded each time, as %s cannot be used: %s", folder, error)
        return split


def _write(split: Split, folder: Path, readers: int, key: Mapping[str, object]) -> None:
    names, sizes = [], []
    with (folder / _PIXELS).open("wb") as file:
        for sample in in_order(split.__getitem__, range(len(split)), readers):
            names.append(sample.name)
            sizes.append(tuple(sample.mask.shape))
            for plane in (sample.image, sample.mask):
                file.write(plane.contiguous().numpy().data)
        file.flush()
        os.fsync(file.fileno())
    index = json.dumps({"key": dict(key), "names": names, "sizes": sizes})
    write_atomically(folder / _INDEX, index)


def _remove_unused(folder: Path) -> None:
    """Remove what no run has opened for a while; those that map it keep it until they end."""
    for index in folder.glob(f"*/{_INDEX}"):
        if time.time() - index.stat().st_mtime > UNUSED_DAYS * 86400:
            shutil.rmtree(index.parent, ignore_errors=True)
