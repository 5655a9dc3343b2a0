"""nasseg searches for semantic-segmentation networks: `nasseg.search`, `nasseg.load`, `nasseg.baseline`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from nasseg.graph import Architecture

__all__ = ["baseline", "load", "search"]


def search(out: str | Path, *, budget: str = "30min", concurrency: int | None = None, **options: Any) -> Architecture:
    """Search in the new run folder `out`, report there, show progress on stderr and return the best architecture.

    `options` are the fields of `nasseg.planning.config.SearchConfig` (`space`, `data`, `weights`, `runner`, …) and of
    its `Plan` (`rungs`, `full_steps`, `finalists`, `seeds`, `image_scale`). Raises `ValueError` for what could not
    work.
    """
    import threading
    from pathlib import Path

    from nasseg.experiment.begin import begin_with
    from nasseg.report.search import SearchReporter

    run = begin_with(Path(out), budget=budget, concurrency=concurrency, **options)
    with SearchReporter(run) as reporter:
        run.run(threading.Event(), reporter.update)
    if run.results.best is None:
        raise ValueError(f"no candidate could be trained within {budget}; give a larger budget")
    return run.architecture(run.results.best)


def load(path: str | Path) -> Architecture:
    """The architecture in a file such as `best.json`; raises `ValueError` with the path of a field that is off."""
    from nasseg.graph import load as load_file

    return load_file(path)


def baseline(name: str, num_classes: int | None = None, **options: Any) -> Architecture:
    """The handcrafted network `name`, as in `baseline("unet", 2, norm="none")`.

    Its logits are for `num_classes` classes, or for as many as its paper's.

    Raises `ValueError` for an unknown name or option, with the known ones.
    """
    from nasseg import plugins

    return plugins.baseline(name, num_classes, **options)
