"""Data sets, augmentation, batches, and the cache of features that trials share."""

from collections.abc import Callable

from nasseg.data.augment import Augment, normalise
from nasseg.data.batches import Batch, evaluation_batches, training_batches
from nasseg.data.cache import CacheWriter, FeatureCache
from nasseg.data.dataset import DataError, Dataset, Sample, Split
from nasseg.data.folder import FolderDataset
from nasseg.data.streets import Streets

DATASETS: dict[str, Callable[[str], Dataset]] = {"streets": Streets.parse, "folder": FolderDataset}
"""Every data set by name: from the text after the colon of `--data` to the data set."""


def open_dataset(text: str) -> Dataset:
    """Open the data set `NAME`, `NAME:OPTIONS` or `folder:PATH`; raises `DataError` if there is none."""
    name, _, options = text.partition(":")
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}: must be one of {', '.join(DATASETS)} (your images: folder:PATH)")
    return DATASETS[name](options)


__all__ = [
    "DATASETS",
    "Augment",
    "Batch",
    "CacheWriter",
    "DataError",
    "Dataset",
    "FeatureCache",
    "FolderDataset",
    "Sample",
    "Split",
    "Streets",
    "evaluation_batches",
    "normalise",
    "open_dataset",
    "training_batches",
]
