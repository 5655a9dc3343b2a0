"""The decisions that define a point of a space: described once, then drawn, changed, suggested, read and counted."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from random import Random
from reprlib import repr as short_repr
from typing import Any, NamedTuple, TypeVar

Value = int | float | str | bool | None
"""An option: a JSON value."""
V = TypeVar("V", bound=Value)


class Decision(NamedTuple):
    """One of `options` for the field `name` of a choice; the other fields are the arguments of `Decide.ordered`."""

    name: str
    options: tuple[Value, ...]
    ordered: bool
    ways: tuple[int, ...] | None = None
    given: Value = None

    @property
    def parameter(self) -> str:
        """The decision's name for samplers."""
        return self.name if self.given is None else f"{self.name} after {self.given}"

    def draw(self, rng: Random) -> int:
        """Draw the position of an option in proportion to `ways`."""
        if self.ways is None:
            return rng.randrange(len(self.options))
        return bisect(tuple(accumulate(self.ways)), rng.randrange(sum(self.ways)))

    def share(self, position: int) -> Fraction:
        """Compute the probability with which `draw` takes an option."""
        return Fraction(1, len(self.options)) if self.ways is None else Fraction(self.ways[position], sum(self.ways))


Made = list[tuple[Decision, int]]
"""The decisions of a choice in order, each with the position of the option taken."""


class Decide:
    """The taker of a space's decisions, one by one. Each returns the option taken, on which later ones may depend."""

    def __init__(self, answer: Callable[[Decision], int]) -> None:
        """Take `answer`, which returns the position of the option to take."""
        self.made: Made = []
        self._answer = answer

    def ordered(self, name: str, options: Sequence[V], *, ways: Sequence[int] | None = None, given: Value = None) -> V:
        """Take one of several ordered values, such as widths: samplers expect neighbours to be alike.

        `name` is the path of the choice's field that holds the value: `width`, `rates.0`, `branches.3.input`; a number
        is the position in a list. `ways` is the number of points that each option leaves open, required if these
        differ, so that samples are uniform over all points and the space can be counted. `given` is the value that
        the options depend on: samplers learn about the decision separately for each of its values.
        """
        return self._take(name, options, True, ways, given)

    def category(self, name: str, options: Sequence[V], *, ways: Sequence[int] | None = None, given: Value = None) -> V:
        """Take one of several unordered values, such as operators. The arguments are those of `ordered`."""
        return self._take(name, options, False, ways, given)

    def _take(self, name: str, options: Sequence[V], ordered: bool, ways: Sequence[int] | None, given: Value) -> V:
        if not options:
            raise ValueError(f"decision {name!r} has no options, but must have at least one")
        if ways is not None and len(ways) != len(options):
            raise ValueError(f"decision {name!r} has {len(options)} options, but {len(ways)} ways: give as many")
        decision = Decision(name, tuple(options), ordered, None if ways is None else tuple(ways), given)
        position = self._answer(decision)
        self.made.append((decision, position))
        return options[position]


Decisions = Callable[[Decide], None]
"""A space's description of its decisions."""


def take(decisions: Decisions, answer: Callable[[Decision], int]) -> Made:
    """Take all decisions as `answer` says."""
    decide = Decide(answer)
    decisions(decide)
    return decide.made


def completions(decisions: Decisions, kept: Mapping[str, Value]) -> Iterator[Made]:
    """Yield all ways to take the decisions with the values `kept` by name; none if one of these is no longer an option.

    With nothing kept, these are all points of the space.
    """
    turn: list[int] = []
    while True:
        made, free = _completion(decisions, kept, turn)
        if made is not None:
            yield made
        while turn and turn[-1] + 1 == free[len(turn) - 1]:
            turn.pop()
        if not turn:
            return
        turn[-1] += 1


class _GoneError(Exception):
    """A kept value is no longer an option."""


def _completion(decisions: Decisions, kept: Mapping[str, Value], turn: list[int]) -> tuple[Made | None, list[int]]:
    """Take the decisions, the free ones by `turn`; returns them and the number of options of each free one.

    A free decision beyond the end of `turn` takes its first option, which is appended to `turn`.
    """
    free: list[int] = []

    def answer(decision: Decision) -> int:
        if decision.name in kept:
            try:
                return decision.options.index(kept[decision.name])
            except ValueError:
                raise _GoneError from None
        free.append(len(decision.options))
        if len(turn) < len(free):
            turn.append(0)
        return turn[len(free) - 1]

    try:
        return take(decisions, answer), free
    except _GoneError:
        return None, free


def as_json(made: Made) -> object:
    """Assemble the choice's JSON from the names of the decisions and the options taken."""
    layout = _layout(tuple(decision.name for decision, _ in made))
    return _filled(layout, [decision.options[position] for decision, position in made])


def read(data: object, decision: Decision) -> int:
    """Read the position of the option taken from a choice's JSON; 0 for an item beyond the end of its list.

    Raises `ValueError` if the value is missing or not an option.
    """
    for part in decision.name.split("."):
        if isinstance(data, list) and part.isdigit():
            if int(part) >= len(data):
                return 0
            data = data[int(part)]
        elif isinstance(data, dict) and part in data:
            data = data[part]
        else:
            raise ValueError(f"{_field(decision.name)} is missing")
    if data not in decision.options:
        known = ", ".join(repr(option) for option in decision.options)
        rule = f"one of {known}" if len(decision.options) > 1 else known
        raise ValueError(f"{_field(decision.name)} is {short_repr(data)}, but must be {rule}")
    return decision.options.index(data)


def difference(data: object, expected: object, at: str = "") -> str:
    """Describe the first difference between a choice's JSON and that of the point with the same decisions."""
    if isinstance(data, list) and isinstance(expected, list):
        if len(data) != len(expected):
            return f"{at} has {len(data)} item{'s' * (len(data) != 1)}, but the space has {len(expected)}"
        parts = [(f"{at}[{place}]", *pair) for place, pair in enumerate(zip(data, expected, strict=True))]
    elif isinstance(data, dict) and isinstance(expected, dict):
        parts = [(f"{at}.{key}".lstrip("."), data[key], expected.get(key)) for key in data]
    else:
        return f"{at} is {short_repr(data)}, but must be {short_repr(expected)}"
    return next(difference(a, b, where) for where, a, b in parts if a != b)


def _field(name: str) -> str:
    return re.sub(r"\.(\d+)", r"[\1]", name)


@lru_cache(maxsize=1024)
def _layout(names: tuple[str, ...]) -> object:
    """Lay out JSON that holds, in place of each value, the position of its name in `names`."""
    tree: dict[str, Any] = {}
    for position, name in enumerate(names):
        *above, last = name.split(".")
        at: Any = tree
        for part in above:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise ValueError(f"decision {name!r} is for a part of a field that another decision fills")
        if last in at:
            raise ValueError(f"decision {name!r} fills a field that is filled already: give each decision its own")
        at[last] = position
    return _with_lists(tree)


def _with_lists(tree: object) -> object:
    """Convert fields that are all numbers to a list."""
    if not isinstance(tree, dict):
        return tree
    parts = {part: _with_lists(below) for part, below in tree.items()}
    if all(part.isdigit() for part in parts):
        return [parts[part] for part in sorted(parts, key=int)]
    return parts


def _filled(layout: Any, values: Sequence[Value]) -> object:
    if isinstance(layout, dict):
        return {part: _filled(below, values) for part, below in layout.items()}
    if isinstance(layout, list):
        return [_filled(part, values) for part in layout]
    return values[layout]
