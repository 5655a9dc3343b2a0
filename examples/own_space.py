"""A search space of one's own, in one file: two atrous convolutions side by side, their rates and their width.

Run from the repository's root, as modules are looked for in the current folder:

    nasseg search --space examples.own_space:TwoRates --budget 8trials
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import ValidationError

from baselines.backbones.mobilenetv2 import mobilenetv2
from baselines.heads import classifier
from nasseg.errors import one_line
from nasseg.graph import Architecture, Builder
from nasseg.ops import Concat, atrous3x3, conv1x1
from nasseg.space import Choice, Space
from nasseg.space.space import Suggest

RATES = (1, 2, 4, 8, 16)
WIDTHS = (32, 64, 128)


class Head(Choice):
    """Two rates, in any order, and the width of both convolutions."""

    rates: tuple[Literal[1, 2, 4, 8, 16], Literal[1, 2, 4, 8, 16]]
    width: Literal[32, 64, 128]


class TwoRates(Space[Head]):
    """Two atrous 3×3 convolutions on MobileNetV2, concatenated and projected."""

    def size(self) -> int:
        """All pairs of rates with all widths."""
        return len(RATES) ** 2 * len(WIDTHS)

    def references(self) -> dict[str, Head]:
        """The plain head: no atrous convolution, in the middle width."""
        return {"plain": Head(rates=(1, 1), width=64)}

    def sample(self, rng: random.Random) -> Head:
        """Each decision drawn uniformly."""
        return Head(rates=(rng.choice(RATES), rng.choice(RATES)), width=rng.choice(WIDTHS))

    def neighbours(self, choice: Head) -> Iterator[Head]:
        """One rate or the width changed."""
        first, second = choice.rates
        yield from (Head(rates=(rate, second), width=choice.width) for rate in RATES if rate != first)
        yield from (Head(rates=(first, rate), width=choice.width) for rate in RATES if rate != second)
        yield from (Head(rates=choice.rates, width=width) for width in WIDTHS if width != choice.width)

    def suggest(self, trial: Suggest) -> Head:
        """Positions in the lists, which keep their order."""
        first, second = (RATES[trial.suggest_int(f"rate_{i}", 0, len(RATES) - 1)] for i in range(2))
        return Head(rates=(first, second), width=WIDTHS[trial.suggest_int("width", 0, len(WIDTHS) - 1)])

    def params(self, choice: Head) -> Mapping[str, int | str]:
        """The suggestions that describe `choice`."""
        rates = {f"rate_{i}": RATES.index(rate) for i, rate in enumerate(choice.rates)}
        return {**rates, "width": WIDTHS.index(choice.width)}

    def canonical(self, choice: Head) -> Head:
        """The smaller rate first: the order of the two makes no difference."""
        first, second = sorted(choice.rates)
        return Head(rates=(first, second), width=choice.width)

    def parse(self, data: Any) -> Head:
        """A head from a file's `choice`."""
        try:
            return Head.model_validate(data)
        except ValidationError as error:
            raise ValueError(one_line(error, "choice")) from None

    @property
    def drawn_place(self) -> str:
        """The part that differs."""
        return "cell"

    @property
    def shared_stage(self) -> str:
        """The backbone is the same for all."""
        return "backbone"

    def architecture(self, choice: Head, classes: int) -> Architecture:
        """Backbone, two convolutions, classifier."""
        g = Builder("two_rates")
        image = g.input()
        features = mobilenetv2(g, image, output_stride=16)
        with g.scope("cell"):
            branches = [
                g.add(f"branch{i}", atrous3x3(choice.width, rate), features.output)
                for i, rate in enumerate(choice.rates)
            ]
            x = g.add("projection", conv1x1(choice.width), g.add("concat", Concat(), *branches))
        return g.build(classifier(g, x, image, classes))
