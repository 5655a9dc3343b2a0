"""nasseg searches for semantic-segmentation networks: `nasseg.search`, `nasseg.load`, `nasseg.baseline`.

>>> import nasseg
>>> nasseg.baseline("stdc1", num_classes=19).describe(size=(512, 1024)).params
8275104
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from nasseg.experiment.keywords import keywords_from
from nasseg.planning.options import SearchOptions
from nasseg.threads import limit_spinning

if TYPE_CHECKING:
    from nasseg.cost.latency_table import LatencyTable
    from nasseg.graph import Architecture, Builder
    from nasseg.space import Choice, Space

__all__ = ["Architecture", "Builder", "Choice", "LatencyTable", "Space", "__version__", "baseline", "load", "search"]
__version__ = version("nasseg")

_LAZY = {
    "Architecture": "nasseg.graph",
    "Builder": "nasseg.graph",
    "Choice": "nasseg.space",
    "LatencyTable": "nasseg.cost.latency_table",
    "Space": "nasseg.space",
}


@keywords_from(SearchOptions)
def search(out: Path, options: SearchOptions) -> Architecture:
    """Search in the new run folder `out`, report there, show progress on stderr and return the best architecture.

        >>> best = nasseg.search("runs/first", max_madds="100M", budget="10min")

    The options are those of the command line, by the same names. Raises `ValueError` for options that could not work.
    """
    import threading

    from nasseg.experiment.begin import begin
    from nasseg.report.profile import ProfileBars
    from nasseg.report.search import SearchReporter
    from nasseg.run_folder import claimed

    with ProfileBars() as bars:
        run = begin(out, options, bars)
    with claimed(run.folder), SearchReporter(run) as reporter:
        run.run(threading.Event(), reporter.update)
    if run.results.best is None:
        raise ValueError(f"no candidate could be trained within {options.budget}; give a larger budget")
    return run.architecture(run.results.best)


limit_spinning()  # read when torch loads


def load(path: str | Path) -> Architecture:
    """Load the architecture in a file such as `best.json`.

        >>> network = nasseg.load("runs/first/best.json").network()  # a torch.nn.Module

    Raises `ValueError` with the path of an invalid field.
    """
    from nasseg.graph import load as load_file

    return load_file(path)


def baseline(name: str, num_classes: int | None = None, **options: str | float | bool) -> Architecture:
    """Build the handcrafted network `name`, with logits for `num_classes` classes, or for as many as in its paper.

        >>> nasseg.baseline("unet", 2, norm="none").classes
        2

    Raises `ValueError` for an unknown name or option, listing the known ones.
    """
    from nasseg import plugins

    return plugins.baseline(name, num_classes, **options)


if not TYPE_CHECKING:  # else a type checker takes any name for one that is here

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module 'nasseg' has no attribute {name!r}")
        return getattr(import_module(_LAZY[name]), name)
