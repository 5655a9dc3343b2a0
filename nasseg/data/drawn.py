"""Parts of splits that are drawn: `train@20%` is a fifth of `train`, `train@-20%` all the rest.

After the share may follow `seed=N`, for another draw, and `by=TEXT`: images whose names agree up to the last TEXT stay
together, as frames of one drive should: `train@20%,seed=1,by=_`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from typing_extensions import Self

from nasseg.data.batches import seeded
from nasseg.data.dataset import DataError, Split
from nasseg.data.subset import Subset

RULE = "must be a share, like 20% or 20%,seed=1,by=_"
SHARE = re.compile(r"(-?)(\d+(?:\.\d+)?)%((?:,(?:seed=\d+|by=[^,]+))*)")


class Drawing(NamedTuple):
    """A share of a split's images, or what it leaves."""

    share: float
    is_rest: bool
    seed: int = 0
    by: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse what is after the @; raises `DataError` for anything else."""
        match = SHARE.fullmatch(text)
        if match is None or not 0 < float(match[2]) < 100:
            raise DataError(f"{text!r} {RULE}, between 0% and 100%")
        options = dict(option.split("=", 1) for option in match[3].split(",") if option)
        return cls(float(match[2]) / 100, match[1] == "-", int(options.get("seed", 0)), options.get("by"))

    def of(self, split: Split) -> Subset:
        """Draw from a split, by whole groups if images stay together. Raises `DataError` if that leaves none."""
        groups: dict[str, list[int]] = {}
        for index in range(len(split)):
            name = split.sample_name(index)
            groups.setdefault(str(index) if self.by is None else name.rpartition(self.by)[0] or name, []).append(index)
        order = [list(groups)[i] for i in torch.randperm(len(groups), generator=seeded(self.seed)).tolist()]
        wanted, drawn = self.share * len(split), list[int]()
        for group in order:
            if not drawn or abs(len(drawn) + len(groups[group]) - wanted) < abs(len(drawn) - wanted):
                drawn += groups[group]
        chosen = set(drawn) if not self.is_rest else set(range(len(split))) - set(drawn)
        if not drawn or len(drawn) == len(split):
            what = f"{len(groups)} groups of {len(split)} images" if self.by else f"{len(split)} image"
            raise DataError(f"split {split.name!r} has {what}, too few to draw {self.share:.0%} from; give more images")
        part = Subset(split, sorted(chosen))
        part.name = f"{split.name}@{'-' if self.is_rest else ''}{self.share * 100:g}%{self._options()}"
        return part

    def _options(self) -> str:
        return (f",seed={self.seed}" if self.seed else "") + (f",by={self.by}" if self.by else "")


def drawn_splits(train: str, val: str) -> tuple[str, str]:
    """Name both parts of `train` if `val` is a share, as in `--val-split 20%`; else return both as they are."""
    if SHARE.fullmatch(val) is None or val.startswith("-"):
        return train, val
    if "@" in train:
        raise DataError(f"split {train!r} is drawn already; give --val-split {train.partition('@')[0]}@{val}")
    return f"{train}@-{val}", f"{train}@{val}"
