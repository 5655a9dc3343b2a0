import platform

import pytest
import torch

from nasseg.graph import Architecture
from nasseg.train.provenance import DataInfo, Provenance, versions

from .made_up import CLASSES, DATA, provenance, small_architecture


def test_it_is_read_back_as_it_was_put_on() -> None:
    full = provenance(weights="imagenet", budget="40trials", seed=3, miou={"test": 0.5}, versions=versions())
    architecture = full.on(small_architecture())
    again = Architecture.model_validate_json(architecture.model_dump_json())
    assert Provenance.read(again) == full
    assert architecture.key == small_architecture().key


def test_data_are_remembered_with_classes_and_colours() -> None:
    data = provenance().data
    assert data.spec == DATA
    assert (len(data.classes), len(data.palette), data.ignore_index) == (CLASSES, CLASSES, 255)
    assert (data.train_split, data.val_split, data.size) == ("train", "val", (32, 64))
    assert isinstance(data, DataInfo)


def test_no_provenance_is_none() -> None:
    assert Provenance.read(small_architecture()) is None


def test_a_wrong_field_is_named() -> None:
    broken = provenance().on(small_architecture()).model_dump(mode="json")
    broken["provenance"]["data"]["size"] = [32]
    del broken["provenance"]["data"]["spec"]
    with pytest.raises(ValueError, match=r"^small: provenance: data\.spec is missing \(and 1 more\)$"):
        Provenance.read(Architecture.model_validate(broken))


def test_versions_are_those_in_use() -> None:
    assert versions()["python"] == platform.python_version()
    assert versions()["torch"] == torch.__version__
    assert "nasseg" in versions()
