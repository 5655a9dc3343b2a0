"""The suite for data sets refuses what is wrong with one."""

import itertools

import pytest
import torch

from nasseg.data import DATASETS, Dataset, Sample, Split
from nasseg.testing import DatasetConformance

SUITE = DatasetConformance()
OPENED = itertools.count()


class Wrong(Dataset):
    """Correct but for `wrong`; not installed."""

    def __init__(self, wrong: str = "nothing") -> None:
        self.wrong, self.name, self.spec = wrong, "wrong", f"wrong:{wrong}"
        self.classes, self.ignore_index = ("x", "y"), 1 if wrong == "ignore index" else 255
        self.palette = ((0, 0, 0), (255, 0, 0))[: 1 if wrong == "palette" else 2]

    def splits(self) -> tuple[str, ...]:
        return ("train", "val")

    def union(self, names: tuple[str, ...]) -> "WrongSplit":
        once = names if self.wrong == "repeats" else tuple(dict.fromkeys(names))
        return WrongSplit(once, self)


class WrongSplit(Split):
    def __init__(self, names: tuple[str, ...], dataset: Wrong) -> None:
        self.wrong, self.ignore_index = dataset.wrong, dataset.ignore_index
        self.name, self.classes = "+".join(names), ("x",) if dataset.wrong == "classes" else dataset.classes
        self.samples = [(name, number) for name in names for number in range(3)]
        self.opened = next(OPENED)
        if dataset.wrong == "open file":
            self.file = (number for number in range(3))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        part, number = self.samples[index]
        image = torch.full((3, 8, 8), 10 * number + len(part), dtype=torch.uint8)
        mask = torch.full((8, 8), {"undeclared class": 2, "ignored": 255}.get(self.wrong, 1), dtype=torch.uint8)
        if self.wrong == "random":
            image = torch.randint(256, (3, 8, 8), dtype=torch.uint8)
        return Sample(
            "same" if self.wrong == "names" else f"{part}/{number}",
            image.float() if self.wrong == "float image" else image,
            mask[:4] if self.wrong == "sizes" else mask.long() if self.wrong == "long mask" else mask,
        )

    @property
    def fingerprint(self) -> str:
        if self.wrong == "fingerprint of all":
            return "all"
        return f"{self.samples} {self.opened if self.wrong == 'fingerprint of an opening' else ''}"

    def check(self) -> None:
        pass


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "wrong", Wrong)


CHECKS = {
    "palette": SUITE.test_its_description_agrees_with_itself,
    "ignore index": SUITE.test_its_description_agrees_with_itself,
    "fingerprint of an opening": SUITE.test_opened_again_it_is_the_same,
    "random": SUITE.test_opened_again_it_is_the_same,
    "fingerprint of all": SUITE.test_fingerprints_tell_splits_apart,
    "undeclared class": SUITE.test_samples_are_what_training_takes,
    "names": SUITE.test_samples_are_what_training_takes,
    "float image": SUITE.test_samples_are_what_training_takes,
    "long mask": SUITE.test_samples_are_what_training_takes,
    "sizes": SUITE.test_samples_are_what_training_takes,
    "classes": SUITE.test_a_split_is_described_as_its_data_set_is,
    "repeats": SUITE.test_a_plus_joins_splits,
}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("wrong", CHECKS)
def test_what_is_wrong_is_found(wrong: str) -> None:
    with pytest.raises(AssertionError):
        CHECKS[wrong](Wrong(wrong))


def test_a_split_that_cannot_go_to_workers_is_found() -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        SUITE.test_workers_can_be_given_a_split(Wrong("open file"))


@pytest.mark.parametrize("check", dict.fromkeys(CHECKS.values()), ids=lambda check: check.__name__)
@pytest.mark.parametrize("wrong", ["nothing", "ignored"])
def test_what_is_right_passes(wrong: str, check: object) -> None:
    if check != SUITE.test_opened_again_it_is_the_same:
        check(Wrong(wrong))  # type: ignore[operator]


def test_what_is_not_installed_is_told_how() -> None:
    with pytest.raises(AssertionError, match=r'"nasseg.datasets"\] wrong = "tests.testing.test_datasets:Wr'):
        SUITE.test_its_spec_opens_it_again(Wrong())
