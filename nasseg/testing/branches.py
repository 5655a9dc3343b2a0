"""A search space in miniature, on which samplers are checked."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from nasseg.errors import one_line
from nasseg.graph import Architecture, Builder
from nasseg.ops import Add, Conv, Resize, logits1x1
from nasseg.space import Choice, Space
from nasseg.space.space import Suggest


class Branches(Choice):
    """The dilation rate of each branch, from 1."""

    rates: tuple[int, ...]


class BranchSpace(Space[Branches]):
    """`branches` convolutions side by side, each with one of `count` rates."""

    branches: int = 3
    count: int = 7

    def size(self) -> int:
        """All sequences of rates."""
        return int(self.count**self.branches)

    def references(self) -> dict[str, Branches]:
        """All rates 1."""
        return {"plain": Branches(rates=(1,) * self.branches)}

    def sample(self, rng: random.Random) -> Branches:
        """Each rate drawn uniformly."""
        return Branches(rates=tuple(rng.randint(1, self.count) for _ in range(self.branches)))

    def neighbours(self, choice: Branches) -> Iterator[Branches]:
        """One rate changed."""
        for i, old in enumerate(choice.rates):
            for new in range(1, self.count + 1):
                if new != old:
                    yield Branches(rates=(*choice.rates[:i], new, *choice.rates[i + 1 :]))

    def suggest(self, trial: Suggest) -> Branches:
        """A rate a branch."""
        return Branches(rates=tuple(trial.suggest_int(f"rate_{i}", 1, self.count) for i in range(self.branches)))

    def params(self, choice: Branches) -> Mapping[str, int | str]:
        """The rates by branch."""
        return {f"rate_{i}": rate for i, rate in enumerate(choice.rates)}

    def canonical(self, choice: Branches) -> Branches:
        """Rates in rising order, as the sum of the branches has none."""
        return Branches(rates=tuple(sorted(choice.rates)))

    def parse(self, data: Any) -> Branches:
        """The choice of a file; raises `ValueError` where it is no point of this space."""
        try:
            choice = Branches.model_validate(data)
        except ValidationError as error:
            raise ValueError(one_line(error, "choice")) from None
        if len(choice.rates) != self.branches or not all(1 <= rate <= self.count for rate in choice.rates):
            raise ValueError(f"choice: rates are {choice.rates}, but must be {self.branches} from 1 to {self.count}")
        return choice

    @property
    def shared_stage(self) -> str | None:
        """The one convolution before the branches."""
        return "backbone"

    def architecture(self, choice: Branches, classes: int) -> Architecture:
        """A convolution, the branches, their sum, and a classifier."""
        g = Builder("branches")
        image = g.input()
        stem = g.add("backbone.stem", Conv(out_channels=8, stride=4), image)
        branches = [
            g.add(f"cell.branch{i}", Conv(out_channels=8, rate=(rate, rate)), stem)
            for i, rate in enumerate(choice.rates)
        ]
        logits = g.add("head.logits", logits1x1(classes), g.add("cell.sum", Add(), *branches))
        return g.build(g.add("head.upsample", Resize(), logits, image))
