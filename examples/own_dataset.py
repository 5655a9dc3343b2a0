"""A data set of one's own: squares on noise, drawn on demand.

Run from the repository's root:

    python -m examples.own_dataset

Images in files need no code: see `--data folder:PATH`. To search on yours with `--data squares:32`, give it as an entry
point in your package's `pyproject.toml`:

    [project.entry-points."nasseg.datasets"]
    squares = "examples.own_dataset:Squares"
"""

import torch

from nasseg.data import DataError, Dataset, Sample, Split


class Squares(Dataset):
    """A bright square on noise; the option is the number of images in each split, as in `squares:32`."""

    name, classes, palette, ignore_index = "squares", ("ground", "square"), ((0, 0, 0), (255, 0, 0)), 255

    def __init__(self, options: str = "64") -> None:
        if not options.isdigit():
            raise DataError(f"squares:{options} is not a data set: give the number of images, like squares:32")
        self.spec = f"squares:{options}"
        self.count = int(options)

    def splits(self) -> tuple[str, ...]:
        """Return two names, whose splits share no image."""
        return ("train", "val")

    def union(self, names: tuple[str, ...]) -> "SquaresSplit":
        """Join the images of the splits, one after the other."""
        return SquaresSplit("+".join(names), [(part, i) for part in dict.fromkeys(names) for i in range(self.count)])


class SquaresSplit(Split):
    """A list of samples, each of which depends only on its part and number."""

    classes, ignore_index = Squares.classes, Squares.ignore_index
    is_computed = True  # so nothing can be wrong with them

    def __init__(self, name: str, samples: list[tuple[str, int]]) -> None:
        self.name, self.samples = name, samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        part, number = self.samples[index]
        generator = torch.Generator().manual_seed(2 * number + (part == "val"))
        image = torch.randint(128, (3, 64, 64), dtype=torch.uint8, generator=generator)
        mask = torch.zeros(64, 64, dtype=torch.uint8)
        y, x = torch.randint(48, (2,), generator=generator).tolist()
        mask[y : y + 16, x : x + 16] = 1
        return Sample(f"{part}/{number}", image + 100 * mask, mask)

    @property
    def fingerprint(self) -> str:
        """All that the images depend on; change the 1 whenever you change how they are drawn."""
        return f"squares 1 {self.samples}"


if __name__ == "__main__":
    split = Squares("32").split("train")
    ground, square = torch.stack([split[i].mask for i in range(len(split))]).flatten().bincount()
    print(f"{len(split)} images, {square / (ground + square):.1%} of their pixels in squares")
