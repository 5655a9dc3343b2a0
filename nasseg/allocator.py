"""Memory of this process: that of freed CPU tensors is kept for the next ones; garbage can wait."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_INT_MAX = 2**31 - 1
LARGEST_KEPT_BYTES = 32 * 2**20
"""Larger blocks go back to the system when freed: otherwise up to eight of one size are kept when one is in use.
It is also the largest threshold that glibc picks by itself."""


@cache
def keep_freed_memory() -> bool:
    """Keep freed memory for the next tensor instead of returning it to the system; returns whether that worked.

    By default glibc returns the end of the heap whenever much of it is free; whether that happens in every forward pass
    depends on which blocks lie there. The system then clears and hands out the same pages again and again, for up to
    half of a pass, in one process but not in the next. Without glibc, nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _INT_MAX)) and bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES))


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Let Python not look for garbage meanwhile: while something is timed, or much is read that stays."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
