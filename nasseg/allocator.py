"""How this process keeps memory that tensors on the processor gave back."""

import ctypes
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_INT_MAX = 2**31 - 1
LARGEST_KEPT_BYTES = 32 * 2**20
"""Larger blocks go back to the system as they are freed: as many as eight of one size would be kept, where one is used.
It is also the largest threshold that glibc comes to by itself."""


@cache
def keep_freed_memory() -> bool:
    """Keep freed memory for the next tensor rather than give it back to the system; whether that could be arranged.

    By default glibc gives the end of the heap back whenever much of it is free, and whether that happens in every
    forward pass depends on which blocks lie there. The system then clears and hands out the same pages again and again,
    for up to half of a pass, in one process but not in the next one. Elsewhere than on glibc nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _INT_MAX)) and bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES))
