"""The search: spaces, budget, planner, the runners of its jobs. The module itself is callable: `nasseg.search(...)`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasseg.graph import Architecture


class _Search(ModuleType):
    def __call__(
        self, out: str | Path, *, budget: str = "30min", concurrency: int | None = None, **options: Any
    ) -> Any:
        """Search in the new run folder `out` and return the best architecture.

        `options` are the fields of `nasseg.search.config.SearchConfig` (`space`, `data`, `weights`, `runner`, …) and of
        its `Plan` (`rungs`, `full_steps`, `finalists`, `seeds`, `image_scale`). Raises `ValueError` for what could not
        work.
        """
        from nasseg.search.run import search

        best: Architecture = search(Path(out), budget=budget, concurrency=concurrency, **options)
        return best


sys.modules[__name__].__class__ = _Search
