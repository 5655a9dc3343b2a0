"""Generated street scenes: the built-in data set, and an instrument in which context pays by construction.

Three pairs of classes look alike locally and are told apart by something far away:

- `pavement` and `parking`: the strip beside the road is paved alike; it is a pavement if the houses across the street
  have red roofs, and parking if they have slate ones.
- `kiosk` and `van`: the same box at the roadside; it is a kiosk if the signs across the street are red, and a van if
  they are blue.
- `bus lane` and `road`: the outer lanes are bus lanes by day, under a blue sky, and open to all in the evening, under a
  golden one.

All three rules hold in the mirror too, so that flipping is a fair augmentation.
"""

import hashlib
import re
from reprlib import repr as short_repr

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nasseg.data.dataset import DataError, Dataset, Sample, Split
from nasseg.data.street_scene import CLASSES, draw
from nasseg.errors import one_line

MAX_SIZE = 4096
"""Pixels of the height and the width of a scene."""
VERSION = 1
"""Part of every fingerprint; increased by a change that alters scenes."""


class StreetsOptions(BaseModel):
    """The options in the text after `streets:`, as in `streets:size=240x320,train=512`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[int, int] = (160, 320)
    """Height and width."""
    train: int = Field(default=256, ge=1, le=100_000)
    val: int = Field(default=64, ge=1, le=100_000)
    test: int = Field(default=64, ge=1, le=100_000)
    seed: int = Field(default=0, ge=0)

    @field_validator("size", mode="before")
    @classmethod
    def _parse_size(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)
        if not match or not 32 <= min(int(match[1]), int(match[2])) <= max(int(match[1]), int(match[2])) <= MAX_SIZE:
            raise ValueError(f"size is {value}, but must be HEIGHTxWIDTH, each from 32 to {MAX_SIZE}")
        return int(match[1]), int(match[2])


class Streets(Dataset):
    """Street scenes drawn on the fly: a scene depends only on its split, its index, the size and the seed."""

    def __init__(self, options: StreetsOptions | None = None) -> None:
        self.options = options or StreetsOptions()
        changed = self.options.model_dump(exclude_defaults=True)
        if "size" in changed:
            changed["size"] = "x".join(map(str, changed["size"]))
        self.name = "streets"
        self.spec = "streets" + "".join(
            f"{',' if i else ':'}{name}={value}" for i, (name, value) in enumerate(changed.items())
        )
        self.classes = tuple(CLASSES)
        self.palette = tuple(CLASSES.values())
        self.ignore_index = 255

    @classmethod
    def parse(cls, text: str) -> "Streets":
        """Make street scenes with the options `NAME=VALUE,…`; raises `DataError` if one is unknown or invalid."""
        options: dict[str, str] = {}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            if name not in StreetsOptions.model_fields:
                known = ", ".join(StreetsOptions.model_fields)
                raise DataError(
                    f"streets has no option {short_repr(name)}: its options are {known} (streets:size=240x320)"
                )
            options[name] = value
        try:
            return cls(StreetsOptions.model_validate(options))
        except ValidationError as error:
            raise DataError(one_line(error, "streets")) from error

    def splits(self) -> tuple[str, ...]:
        """Return train, val and test."""
        return ("train", "val", "test")

    def union(self, names: tuple[str, ...]) -> "StreetsSplit":
        """The scenes of each split once."""
        return StreetsSplit(names, self)


class StreetsSplit(Split):
    """A split whose scenes are drawn on access, in a few milliseconds each."""

    is_computed = True

    def __init__(self, names: tuple[str, ...], dataset: Streets) -> None:
        self.name = "+".join(names)
        self.classes = dataset.classes
        self.ignore_index = dataset.ignore_index
        self._options = dataset.options
        self._scenes = [
            (part, index) for part in dict.fromkeys(names) for index in range(getattr(dataset.options, part))
        ]
        self._parts = dataset.splits()

    def __len__(self) -> int:
        return len(self._scenes)

    def sample_name(self, index: int) -> str:
        """The split and the number of a scene."""
        part, number = self._scenes[index]
        return f"{part}/{number:05d}"

    def size(self, index: int) -> tuple[int, int]:
        """The size of all scenes."""
        return self._options.size

    def __getitem__(self, index: int) -> Sample:
        part, number = self._scenes[index]
        rng = np.random.default_rng((self._options.seed, self._parts.index(part), number))
        image, mask = draw(*self._options.size, rng)
        return Sample(
            self.sample_name(index), torch.from_numpy(image).permute(2, 0, 1).contiguous(), torch.from_numpy(mask)
        )

    @property
    def fingerprint(self) -> str:
        """A hash of the options and the version of the scenes."""
        content = (VERSION, self._options.size, self._options.seed, self._scenes)
        return hashlib.sha256(repr(content).encode()).hexdigest()
