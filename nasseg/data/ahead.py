"""Preparing items ahead of their use, in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")

WAITING = 2
"""Items that are prepared ahead, besides one a thread."""


def in_order(prepare: Callable[[Item], Prepared], items: Iterable[Item], readers: int) -> Iterator[Prepared]:
    """Yield `prepare(item)` for each item in order, prepared ahead by so many `readers`, or here as asked for with 0.

    Few items wait at a time, so `items` may be endless. What `prepare` raises is raised here, in the item's turn.
    """
    if readers == 0:
        yield from map(prepare, items)
        return
    remaining, running = iter(items), deque[Future[Prepared]]()
    pool = ThreadPoolExecutor(readers, thread_name_prefix="nasseg-reader")
    try:
        running.extend(pool.submit(prepare, item) for item in islice(remaining, readers + WAITING))
        while running:
            yield running.popleft().result()
            running.extend(pool.submit(prepare, item) for item in islice(remaining, 1))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
