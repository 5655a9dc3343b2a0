"""Every data set under the suite for data sets: the folder that `conftest.py` writes, and a few street scenes."""

from pathlib import Path

import pytest

from nasseg.data import DATASETS, Dataset, FolderDataset, open_dataset
from nasseg.data.formats.official import official_names
from nasseg.testing import DatasetConformance

SPECS = ["streets:size=32x48,train=4,val=2,test=2", "streets:size=40x64,train=3,val=1,test=1,seed=7", "folder"]


@pytest.fixture(params=SPECS)
def dataset(request: pytest.FixtureRequest, folder: Path) -> Dataset:
    return FolderDataset(folder) if request.param == "folder" else open_dataset(request.param)


def test_every_data_set_is_here() -> None:
    """The public ones are in `test_official.py`."""
    assert {spec.partition(":")[0] for spec in SPECS} == set(DATASETS) - set(official_names())


class TestDatasets(DatasetConformance):
    pass
