import pytest
import torch

from nasseg.data import DATASETS, DataError, Sample, Split, open_dataset


class MixedSizes(Split):
    """Blank images of the given heights and widths."""

    name, classes, ignore_index, fingerprint = "mixed", ("a",), 255, "mixed"

    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            str(index), *(torch.zeros(*of, dtype=torch.uint8) for of in ((3, *self.sizes[index]), self.sizes[index]))
        )

    def check(self) -> None: ...


def test_the_typical_size_is_that_of_the_image_of_median_area() -> None:
    assert MixedSizes([(1000, 1000), (20, 40), (30, 30)]).typical_size() == (30, 30)
    assert MixedSizes([(1000, 1000), (20, 40)]).typical_size() == (20, 40)
    assert MixedSizes([(7, 5)]).typical_size() == (7, 5)
    assert MixedSizes([(10, 10)] * 400 + [(20, 10)] * 600).typical_size() == (20, 10)


def test_unknown_data_set_lists_the_known() -> None:
    with pytest.raises(DataError) as error:
        open_dataset("street:size=1x1")
    assert all(name in str(error.value) for name in DATASETS)
    assert "'street'" in str(error.value)
