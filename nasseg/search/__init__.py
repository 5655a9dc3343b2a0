"""The search: spaces, budget, planner, the runners of its jobs. The module itself is callable: `nasseg.search(...)`."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasseg.graph import Architecture
    from nasseg.search.run import Search


class _Search(ModuleType):
    def __call__(
        self, out: str | Path, *, budget: str = "30min", concurrency: int | None = None, **options: Any
    ) -> Any:
        """Search in the new run folder `out`, report there, show progress on stderr and return the best architecture.

        `options` are the fields of `nasseg.search.config.SearchConfig` (`space`, `data`, `weights`, `runner`, …) and of
        its `Plan` (`rungs`, `full_steps`, `finalists`, `seeds`, `image_scale`). Raises `ValueError` for what could not
        work.
        """
        from nasseg.report.search import SearchReporter
        from nasseg.search.run import begin_with

        run: Search = begin_with(Path(out), budget=budget, concurrency=concurrency, **options)
        with SearchReporter(run) as reporter:
            run.run(threading.Event(), reporter.update)
        if run.best is None:
            raise ValueError(f"no candidate could be trained within {budget}; give a larger budget")
        best: Architecture = run.architecture(run.best)
        return best


sys.modules[__name__].__class__ = _Search
