"""The contract of a search space, which `--space` finds by entry point or `package.module:Name`."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from nasseg.errors import one_line
from nasseg.graph import Architecture
from nasseg.space.decisions import Decide, Decision, Made, as_json, completions, difference, read, take
from nasseg.space.weighted_graph import WeightedGraph

COUNTED_SAMPLES = 20
"""Samples whose counts of the space must agree."""


class Choice(BaseModel):
    """One point of a space, as frozen JSON-serialisable data."""

    model_config = ConfigDict(frozen=True, extra="forbid")


C = TypeVar("C", bound=Choice)


class Space(BaseModel, ABC, Generic[C]):
    """A set of architectures that a search explores. Its fields are the options after the colon of `--space`.

    A space says which decisions lead to a point, which points to try first, and how a point is built:

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

    All else follows from these; override what the space knows better, such as `canonical`. `examples/own_space.py` is
    a whole one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def decisions(self, decide: Decide) -> None:
        """Take every decision that leads to a point. What is asked may depend on the options taken before alone."""

    @abstractmethod
    def references(self) -> dict[str, C]:
        """Handcrafted points by name, the first of them the baseline to beat. A search tries them first."""

    @abstractmethod
    def architecture(self, choice: C, classes: int) -> Architecture:
        """The network of `choice`, with its logits for `classes` classes."""

    @property
    def drawn_place(self) -> str | None:
        """The prefix of the names of those nodes that a drawing of a point shows; `None` shows all."""
        return None

    @property
    def shared_stage(self) -> str | None:
        """The stage whose prefix every point shares, so that its outputs can be computed once; `None` if none is."""
        return None

    def canonical(self, choice: C) -> C:
        """The one representative of all choices that mean the same network."""
        return choice

    def graphs(self, choice: C) -> tuple[WeightedGraph, ...]:
        """Further drawings of a point, such as the path that it takes through the space."""
        return ()

    def choose(self, answer: Callable[[Decision], int]) -> C:
        """The point whose decisions `answer` takes, each by the position of an option."""
        return self._choice(take(self.decisions, answer))

    def made(self, choice: C) -> Made:
        """The decisions that lead to `choice`, each with the position of the option taken.

        Raises `ValueError` if the space has no such point.
        """
        data = choice.model_dump(mode="json")
        return take(self.decisions, lambda decision: read(data, decision))

    def sample(self, rng: random.Random) -> C:
        """A point drawn uniformly, if the decisions tell the `ways` that their options leave open."""
        return self.choose(lambda decision: decision.draw(rng))

    def neighbours(self, choice: C) -> Iterator[C]:
        """Every point with one decision changed and the others kept.

        Decisions that newly come up take all their options; a point at which a kept value is no option is left out.
        """
        made = self.made(choice)
        kept = {decision.name: decision.options[position] for decision, position in made}
        for decision, position in made:
            for option in (*decision.options[:position], *decision.options[position + 1 :]):
                changed = {**kept, decision.name: option}
                yield from map(self._choice, completions(self.decisions, changed))

    def size(self) -> int | None:
        """The number of points; `None` if it cannot be counted, as decisions leave out the `ways` that they need."""
        rng = random.Random("size")
        points = [*self.references().values(), *(self.sample(rng) for _ in range(COUNTED_SAMPLES))]
        counts = {1 / math.prod(decision.share(taken) for decision, taken in self.made(point)) for point in points}
        count = counts.pop()
        return None if counts or count != int(count) else int(count)

    def parse(self, data: Any) -> C:
        """The choice that a file's `choice` field holds; a space may read a format of its own too.

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

    def _choice(self, made: Made) -> C:
        return self._choice_type().model_validate(as_json(made))

    @classmethod
    def _choice_type(cls) -> type[C]:
        """`Head` of `Space[Head]`."""
        for base in cls.__mro__:
            for argument in getattr(base, "__pydantic_generic_metadata__", {}).get("args", ()):
                if isinstance(argument, type) and issubclass(argument, Choice):
                    return cast("type[C]", argument)
        raise TypeError(f"{cls.__name__} does not name its choices, but must derive from Space[…]")
