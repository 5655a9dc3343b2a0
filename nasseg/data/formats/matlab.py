"""Masks in MATLAB files (version 5) as the Semantic Boundaries Dataset has them: `GTcls.Segmentation`.

SciPy would read them, too, but nests as deep and allocates as much as a file asks for.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasseg.data.dataset import DataError
from nasseg.foreign import MAX_IMAGE_PIXELS, MAX_MATLAB_BYTES, MAX_SIDE, read_bytes

ENDING = ".mat"
STRUCT, FIELD = "GTcls", "Segmentation"
_HEADER_BYTES, _LITTLE_ENDIAN = 128, b"IM"
_MATRIX, _COMPRESSED = 14, 15
_STRUCT_CLASS = 2
_MOST_ELEMENTS = 16
"""Of a file or a struct; each may unpack to the limit. SBD's have 1 and 8."""
_INTEGERS = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4"}


def read_segmentation(path: Path) -> NDArray[Any]:
    """Read the mask in a file, integers (H, W); raises `DataError` if it holds none, or is beyond the limits."""
    try:
        content = read_bytes(path, MAX_MATLAB_BYTES, "give a mask of SBD, a file of cls/")
        return _segmentation(content)
    except (ValueError, struct.error, zlib.error, StopIteration) as error:
        raise DataError(f"{path} is no MATLAB file with {STRUCT}.{FIELD}: {error or 'it ends too early'}") from None


def _segmentation(content: bytes) -> NDArray[Any]:
    if content[_HEADER_BYTES - 2 : _HEADER_BYTES] != _LITTLE_ENDIAN:
        raise ValueError("it is not of version 5, little-endian")
    for kind, data in _elements(memoryview(content)[_HEADER_BYTES:]):
        if kind == _COMPRESSED:
            kind, data = next(_elements(memoryview(_inflated(data))))
        if kind == _MATRIX:
            class_, _, name, parts = _matrix(data)
            if (class_, name) == (_STRUCT_CLASS, STRUCT):
                return _numbers(_field(parts))
    raise ValueError("it has no such struct")


def _inflated(data: memoryview) -> bytes:
    unpacking = zlib.decompressobj()
    unpacked = unpacking.decompress(data, MAX_MATLAB_BYTES)
    if unpacking.unconsumed_tail:
        raise ValueError(f"it unpacks to over {MAX_MATLAB_BYTES:,} bytes, the most that are read")
    return unpacked


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the type and the content of each element; the content of a small one is within its tag."""
    at = 0
    for _ in range(_MOST_ELEMENTS):
        if at >= len(data):
            return
        kind, size = struct.unpack_from("<II", data, at)
        start = at + 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        if start + size > len(data):
            raise ValueError("it ends too early")
        yield kind, data[start : start + size]
        at = start + size if kind == _COMPRESSED else start + size + -(start + size) % 8
    raise ValueError(f"it has over {_MOST_ELEMENTS} parts, the most that are read")


def _matrix(data: memoryview) -> tuple[int, tuple[int, ...], str, Iterator[tuple[int, memoryview]]]:
    """Return the class of an array, its dimensions and its name, and the elements with its content."""
    parts = _elements(data)
    (_, flags), (_, dimensions), (_, name) = next(parts), next(parts), next(parts)
    sizes = struct.unpack(f"<{len(dimensions) // 4}i", dimensions)
    (class_,) = struct.unpack_from("<B", flags)
    return class_, sizes, bytes(name).decode("latin-1"), parts


def _field(parts: Iterator[tuple[int, memoryview]]) -> memoryview:
    """Find the content of the field in a struct's elements: the length of names, all names, then all values."""
    (_, length), (_, names) = next(parts), next(parts)
    (each,) = struct.unpack("<i", length)
    fields = bytes(names).decode("latin-1")
    for start, (_, value) in zip(range(0, len(fields), max(each, 1)), parts, strict=False):
        if fields[start : start + each].rstrip("\0") == FIELD:
            return value
    raise ValueError("it has no such field")


def _numbers(data: memoryview) -> NDArray[Any]:
    """Return an array (rows, columns) of integers; MATLAB stores one column after the other."""
    _, sizes, _, parts = _matrix(data)
    kind, values = next(parts)
    if kind not in _INTEGERS:
        raise ValueError("it does not hold integers")
    if len(sizes) != 2 or not all(0 < size <= MAX_SIDE for size in sizes) or math.prod(sizes) > MAX_IMAGE_PIXELS:
        shape = "x".join(map(str, sizes[:4]))
        raise ValueError(f"it is {shape}, but must have at most {MAX_IMAGE_PIXELS:,} pixels, and {MAX_SIDE:,} per side")
    return np.frombuffer(values, _INTEGERS[kind]).reshape(sizes, order="F")
