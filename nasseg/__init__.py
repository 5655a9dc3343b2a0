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
    from nasseg.export.model import Model
    from nasseg.graph import Architecture, Builder
    from nasseg.space import Choice, Space

__all__ = [
    "Architecture",
    "Builder",
    "Choice",
    "LatencyTable",
    "Model",
    "Space",
    "__version__",
    "baseline",
    "load",
    "search",
]
__version__ = version("nasseg")

_LAZY = {
    "Architecture": "nasseg.graph",
    "Builder": "nasseg.graph",
    "Choice": "nasseg.space",
    "LatencyTable": "nasseg.cost.latency_table",
    "Model": "nasseg.export.model",
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


def load(path: str | Path) -> Architecture | Model:
    """Load a trained model, ready to use, or the architecture in a JSON file such as `best.json`, which is untrained.

        >>> network = nasseg.load("runs/first/best.json").network()  # a torch.nn.Module with random weights

    A run folder, its `model.safetensors` and an exported ONNX file give a `Model`, whose network is the trained one:

        model = nasseg.load("runs/best")
        mask = model.predict(np.asarray(Image.open("photo.jpg")))

    Raises `ValueError` with the path of an invalid field, and for a run that has not trained its network yet.
    """
    from nasseg.graph import load as load_file
    from nasseg.run_folder import BEST_FILE, MODEL_FILE

    path = Path(path)
    if path.is_dir() and (path / BEST_FILE).exists() and not (path / MODEL_FILE).exists():
        raise ValueError(f"{path} holds no trained model yet; load {path / BEST_FILE} for its untrained architecture")
    if path.is_dir() or path.suffix in {".safetensors", ".onnx", ".pt2"}:
        from nasseg.export.model import Model

        return Model.load(path)
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
