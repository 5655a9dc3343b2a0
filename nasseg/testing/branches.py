"""A search space in miniature, on which samplers are checked."""

from __future__ import annotations

from typing import ClassVar

from nasseg.graph import Architecture, Builder
from nasseg.ops import Add, Conv, Resize, logits1x1
from nasseg.space import Choice, Decide, Space


class Branches(Choice):
    """The dilation rate of each branch, from 1."""

    rates: tuple[int, ...]


class BranchSpace(Space[Branches]):
    """A space of `branches` parallel convolutions, each with one of `count` rates."""

    shared_stage: ClassVar[str | None] = "backbone"

    branches: int = 3
    count: int = 7

    def decisions(self, decide: Decide) -> None:
        """Take a rate per branch."""
        for i in range(self.branches):
            decide.ordered(f"rates.{i}", range(1, self.count + 1))

    def references(self) -> dict[str, Branches]:
        """Return the point whose rates are all 1."""
        return {"plain": Branches(rates=(1,) * self.branches)}

    def canonical(self, choice: Branches) -> Branches:
        """Sort the rates, as the sum of the branches has no order."""
        return Branches(rates=tuple(sorted(choice.rates)))

    def architecture(self, choice: Branches, classes: int) -> Architecture:
        """Build a convolution, the branches, their sum, and a classifier."""
        g = Builder("branches")
        image = g.input()
        stem = g.add("backbone.stem", Conv(out_channels=8, stride=4), image)
        branches = [
            g.add(f"cell.branch{i}", Conv(out_channels=8, rate=(rate, rate)), stem)
            for i, rate in enumerate(choice.rates)
        ]
        logits = g.add("head.logits", logits1x1(classes), g.add("cell.sum", Add(), *branches))
        return g.build(g.add("head.upsample", Resize(), logits, image))
