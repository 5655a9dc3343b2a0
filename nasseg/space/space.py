"""The contract of a search space, which `--space` finds by entry point or `package.module:Name`."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from nasseg.errors import one_line
from nasseg.graph import Architecture
from nasseg.space.decisions import Decide, Decision, Made, Value, as_json, completions, difference, read, take
from nasseg.space.weighted_graph import WeightedGraph

MOST_OPENED = 256
"""Points that differ in one decision and those that it opens; with more, they are not neighbours."""
COUNTED_SAMPLES = 20
"""Random points whose counts of the space must agree."""


class Choice(BaseModel):
    """One point of a space, as frozen JSON-serialisable data."""

    model_config = ConfigDict(frozen=True, extra="forbid")


C = TypeVar("C", bound=Choice)


class Space(BaseModel, ABC, Generic[C]):
    """A set of architectures that a search explores. Its fields are the options after the colon of `--space`.

    A space defines the decisions that lead to a point, the points to try first, and how a point is built:

        class Head(Choice):
            kernel: int
            channels: int

        class Heads(Space[Head]):
            shared_stage: ClassVar = "backbone"

            def decisions(self, decide: Decide) -> None:
                decide.category("kernel", (1, 3))
                decide.ordered("channels", (32, 64, 128))

            def references(self) -> dict[str, Head]:
                return {"plain": Head(kernel=1, channels=64)}

            def architecture(self, choice: Head, classes: int) -> Architecture:
                g = Builder("head")
                image = g.input()
                features = mobilenetv2(g, image, output_stride=16).output
                x = g.add("head.conv", Conv(out_channels=choice.channels, kernel=choice.kernel), features)
                return g.build(classifier(g, x, image, classes))

    All else follows from these; override what the space knows better, such as `canonical`. `examples/own_space.py` is a
    complete one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def decisions(self, decide: Decide) -> None:
        """Take every decision that leads to a point, under the names of the choice's fields that they fill.

        Later decisions may depend on the options taken before, and on nothing else. A field that some points leave
        without a decision needs a default.
        """

    @abstractmethod
    def references(self) -> dict[str, C]:
        """Return handcrafted points by name, first the baseline to beat. A search tries them first."""

    @abstractmethod
    def architecture(self, choice: C, classes: int) -> Architecture:
        """Build the network of `choice`, with logits for `classes` classes."""

    @property
    def drawn_place(self) -> str | None:
        """The name prefix of the nodes that a drawing of a point shows; `None` shows all."""
        return None

    @property
    def shared_stage(self) -> str | None:
        """The stage that every point shares, so that its outputs can be computed once; `None` if there is none."""
        return None

    @property
    def dial(self) -> str | None:
        """The name of the ordered decision that scales the whole network; `None` if there is none.

        By it, points are scaled to the limits of a search. It is taken at every point, its options rise in cost, and no
        other decision depends on it.
        """
        return None

    def canonical(self, choice: C) -> C:
        """Return the one representative of all choices that mean the same network."""
        return choice

    def graphs(self, choice: C) -> tuple[WeightedGraph, ...]:
        """Return further drawings of a point, such as its path through the space."""
        return ()

    def choose(self, answer: Callable[[Decision], int]) -> C:
        """Take each decision by `answer`, which returns the position of an option, and return the point."""
        return self._choice(take(self.decisions, answer))

    def made(self, choice: C) -> Made:
        """List the decisions that lead to `choice`, each with the position of the option taken.

        Raises `ValueError` if the space has no such point.
        """
        data = choice.model_dump(mode="json")
        return take(self.decisions, lambda decision: read(data, decision))

    def dial_of(self, choice: C) -> tuple[Decision, int]:
        """Return the dial's decision at a point, with the position of the option taken; raises as `dialled` does."""
        return self._dial_in(self.made(choice))

    def dialled(self, choice: C, position: int) -> C:
        """Return the point with the dial's option at `position`, and all else kept.

        Raises `ValueError` if the space has no dial.
        """
        made = self.made(choice)
        dial, _ = self._dial_in(made)
        return self._choice([(decision, position if decision == dial else taken) for decision, taken in made])

    def sample(self, rng: random.Random) -> C:
        """Draw a point, uniformly if the decisions give the `ways` that their options leave open."""
        return self.choose(lambda decision: decision.draw(rng))

    def neighbours(self, choice: C) -> Iterator[C]:
        """Yield every point with one decision changed and the others kept; the dial moves by one option only.

        New decisions that arise take all their options, unless that makes more than `MOST_OPENED` points, there or on
        the way back; a point in which a kept value is not an option is left out.
        """
        made = self.made(choice)
        kept = _options_taken(made)
        for decision, position in made:
            reach = 1 if decision.name == self.dial else len(decision.options)
            below = decision.options[max(0, position - reach) : position]
            above = decision.options[position + 1 : position + 1 + reach]
            for option in (*below, *above):
                found = self._completed({**kept, decision.name: option})
                back = {**_options_taken(found[0]), decision.name: kept[decision.name]} if found else {}
                if found and (back.keys() >= kept.keys() or self._completed(back)):
                    yield from map(self._choice, found)

    def mutated(self, choice: C, rng: random.Random) -> C:
        """Return the point with one decision changed, drawn uniformly; decisions that arise are drawn too."""
        made = self.made(choice)
        changed, position = rng.choice([one for one in made if len(one[0].options) > 1])
        other = rng.choice([option for place, option in enumerate(changed.options) if place != position])
        kept = {**_options_taken(made), changed.name: other}

        def answer(decision: Decision) -> int:
            option = kept.get(decision.name)
            known = decision.name in kept and option in decision.options
            return decision.options.index(option) if known else decision.draw(rng)

        return self.choose(answer)

    def _completed(self, kept: Mapping[str, Value]) -> list[Made]:
        found = list(islice(completions(self.decisions, kept), MOST_OPENED + 1))
        return found if len(found) <= MOST_OPENED else []

    def size(self) -> int | None:
        """Count the points; `None` if that is impossible because decisions lack the `ways` that they need."""
        rng = random.Random("size")
        points = [*self.references().values(), *(self.sample(rng) for _ in range(COUNTED_SAMPLES))]
        counts = {1 / math.prod(decision.share(taken) for decision, taken in self.made(point)) for point in points}
        count = counts.pop()
        return None if counts or count != int(count) else int(count)

    def parse(self, data: object) -> C:
        """Read the `choice` field of a file; a space may also read a format of its own.

        Raises `ValueError` if it does not fit the space.
        """
        try:
            found = self._choice_type().model_validate(data)
        except ValidationError as error:
            raise ValueError(one_line(error, "choice")) from None
        try:
            choice = self._choice(self.made(found))
        except ValueError as error:
            raise ValueError(f"choice: {error}") from None
        if choice != found:
            raise ValueError(f"choice: {difference(found.model_dump(mode='json'), choice.model_dump(mode='json'))}")
        return choice

    def _dial_in(self, made: Made) -> tuple[Decision, int]:
        taken = next((one for one in made if one[0].name == self.dial), None)
        if taken is None:
            raise ValueError(f"dial is {self.dial!r}, but must be a decision of every point: name one that is")
        return taken

    def _choice(self, made: Made) -> C:
        return self._choice_type().model_validate(as_json(made))

    @classmethod
    def _choice_type(cls) -> type[C]:
        """Return `Head` for a subclass of `Space[Head]`."""
        for base in cls.__mro__:
            for argument in getattr(base, "__pydantic_generic_metadata__", {}).get("args", ()):
                if isinstance(argument, type) and issubclass(argument, Choice):
                    return cast("type[C]", argument)
        raise TypeError(f"{cls.__name__} does not name its choices, but must derive from Space[…]")


def _options_taken(made: Made) -> dict[str, Value]:
    return {decision.name: decision.options[position] for decision, position in made}
