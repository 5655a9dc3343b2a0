"""What a search space provides: the protocol that `--space` finds by entry point or `package.module:Name`."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from nasseg.graph import Architecture
from nasseg.space.weighted_graph import WeightedGraph


class Suggest(Protocol):
    """The part of an Optuna trial that a space needs to propose a choice (`optuna.trial.Trial`, `FixedTrial`)."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""

    def suggest_categorical(self, name: str, choices: list[str]) -> str:
        """One of `choices`."""


class Choice(BaseModel):
    """One point of a space, as frozen JSON-serialisable data."""

    model_config = ConfigDict(frozen=True, extra="forbid")


C = TypeVar("C", bound=Choice)


class Space(BaseModel, ABC, Generic[C]):
    """A set of architectures that a search explores. Its fields are the options after the colon of `--space`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def size(self) -> int:
        """Number of points."""

    @abstractmethod
    def references(self) -> dict[str, C]:
        """Handcrafted points by name, the first of them the baseline to beat. A search tries them first."""

    @abstractmethod
    def sample(self, rng: random.Random) -> C:
        """A point drawn uniformly."""

    @abstractmethod
    def neighbours(self, choice: C) -> Iterator[C]:
        """Every point that differs in one decision."""

    @abstractmethod
    def suggest(self, trial: Suggest) -> C:
        """The point that a trial's suggestions describe (define by run)."""

    @abstractmethod
    def params(self, choice: C) -> Mapping[str, int | str]:
        """The suggestions that describe `choice`: `suggest(FixedTrial(params(choice))) == choice`."""

    @abstractmethod
    def canonical(self, choice: C) -> C:
        """The one representative of all choices that mean the same network."""

    @abstractmethod
    def parse(self, data: Any) -> C:
        """The choice that a file's `choice` field holds, or that a file in the space's own format does.

        Raises `ValueError` where it does not fit the space.
        """

    @abstractmethod
    def architecture(self, choice: C, classes: int) -> Architecture:
        """The network of `choice`, with its logits for `classes` classes."""

    @property
    def drawn_place(self) -> str | None:
        """How the names of those nodes begin that a drawing of a point shows; `None` shows all."""
        return None

    def graphs(self, choice: C) -> tuple[WeightedGraph, ...]:
        """Further drawings of a point, such as the path that it takes through the space."""
        return ()

    @property
    @abstractmethod
    def shared_stage(self) -> str | None:
        """The stage whose prefix every point shares, so that its outputs can be computed once; `None` if none is."""
