import pytest

from nasseg.data import DATASETS, DataError, open_dataset


def test_unknown_data_set_lists_the_known() -> None:
    with pytest.raises(DataError) as error:
        open_dataset("street:size=1x1")
    assert all(name in str(error.value) for name in DATASETS)
    assert "'street'" in str(error.value)
