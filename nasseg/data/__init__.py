"""Data sets, augmentation, batches, and the cache of features that trials share."""

from collections.abc import Callable

from nasseg import plugins
from nasseg.data.augment import Augment, denormalise, normalise
from nasseg.data.batches import Batch, Pace, evaluation_batches, training_batches
from nasseg.data.cache import Block, FeatureCache
from nasseg.data.dataset import DataError, Dataset, Sample, Split
from nasseg.data.drawn import drawn_splits
from nasseg.data.folder import FolderDataset, OfficialDataset
from nasseg.data.formats.official import official_names
from nasseg.data.streets import Streets

DATASETS: dict[str, Callable[[str], Dataset]] = {
    "streets": Streets.parse,
    "folder": FolderDataset,
    **{name: OfficialDataset(name) for name in official_names()},
}
"""The built-in data sets by name: from the text after the colon of `--data` to the data set."""

ENTRY_POINTS = "nasseg.datasets"
"""Group of entry points in which installed packages give data sets of their own, each called like those above."""


def datasets() -> dict[str, Callable[[str], Dataset]]:
    """Every data set by name: the built-in ones, then those of installed packages."""
    installed = {name: plugins.loaded(ENTRY_POINTS, name) for name in plugins.names(ENTRY_POINTS)}
    return DATASETS | installed | DATASETS


def open_dataset(text: str) -> Dataset:
    """Open the data set `NAME`, `NAME:OPTIONS` or `folder:PATH`; raises `DataError` if there is none."""
    name, _, options = text.partition(":")
    known = DATASETS if name in DATASETS else datasets()
    if name not in known:
        raise DataError(f"unknown data set {name!r}: must be one of {', '.join(known)} (your images: folder:PATH)")
    return known[name](options)


__all__ = [
    "DATASETS",
    "ENTRY_POINTS",
    "Augment",
    "Batch",
    "Block",
    "DataError",
    "Dataset",
    "FeatureCache",
    "FolderDataset",
    "Pace",
    "Sample",
    "Split",
    "Streets",
    "datasets",
    "denormalise",
    "drawn_splits",
    "evaluation_batches",
    "normalise",
    "open_dataset",
    "training_batches",
]
