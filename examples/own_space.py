"""A search space of one's own; try `nasseg search --space examples.own_space:TwoRates --budget 8trials`."""

from typing import ClassVar

from baselines.backbones.mobilenetv2 import mobilenetv2
from baselines.heads import classifier
from nasseg.graph import Architecture, Builder
from nasseg.ops import Concat, atrous3x3, conv1x1
from nasseg.space import Choice, Decide, Space


class Head(Choice):
    """The rates of both convolutions, and their width."""

    rates: tuple[int, int]
    width: int


class TwoRates(Space[Head]):
    """Two atrous 3×3 convolutions side by side on MobileNetV2, concatenated and projected."""

    drawn_place: ClassVar = "cell"
    shared_stage: ClassVar = "backbone"

    def decisions(self, decide: Decide) -> None:
        """Take each decision under the name of the field of `Head` that it fills."""
        for i in range(2):
            decide.ordered(f"rates.{i}", (1, 2, 4, 8, 16))
        decide.ordered("width", (32, 64, 128))

    def references(self) -> dict[str, Head]:
        """Return the plain head to beat: no atrous convolution, in the middle width."""
        return {"plain": Head(rates=(1, 1), width=64)}

    def canonical(self, choice: Head) -> Head:
        """Put the smaller rate first, as the order of the two makes no difference."""
        return choice.model_copy(update={"rates": tuple(sorted(choice.rates))})

    def architecture(self, choice: Head, classes: int) -> Architecture:
        """Build backbone, two convolutions and classifier."""
        g = Builder("two_rates")
        features = mobilenetv2(g, image := g.input(), output_stride=16).output
        branches = [g.add(f"cell.atrous{i}", atrous3x3(choice.width, r), features) for i, r in enumerate(choice.rates)]
        x = g.add("cell.projection", conv1x1(choice.width), g.add("cell.concat", Concat(), *branches))
        return g.build(classifier(g, x, image, classes))
