import pytest

from examples.own_dataset import Squares
from nasseg.data import DataError, open_dataset
from nasseg.testing import DatasetConformance
from tests.examples.command import printed


class TestSquares(DatasetConformance):
    dataset = Squares("8")


def test_it_runs() -> None:
    assert printed("own_dataset") == "32 images, 6.2% of their pixels in squares\n"


def test_wrong_options() -> None:
    with pytest.raises(DataError, match="squares:few is not a data set: give the number of images"):
        open_dataset("squares:few")
