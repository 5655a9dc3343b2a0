"""The operators and networks of a space that a profile measures."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from nasseg.cost.describe import op_madds, values_moved
from nasseg.cost.latency_table import Operator, operators_of
from nasseg.graph import Architecture
from nasseg.space import Space

PATIENCE = 200
"""Points in a row without a new operator after which all are considered found."""
ENOUGH_FOUND = 5000
"""Operators after which no more are looked for, as the shapes of some spaces have no end."""
FEWEST_OF_A_KIND = 10
"""Operators of each kind to measure, as far as there are so many."""
MADDS_PER_VALUE = 16
"""Multiply–adds that take about as long as moving a value, to tell kinds that take much of the time."""


def points_of(space: Space[Any], classes: int) -> Iterator[Architecture]:
    """Yield points that soon cover a space's operators: the references, then endless random ones."""
    for choice in space.references().values():
        yield space.architecture(choice, classes)
    rng = random.Random("operators")
    while True:
        yield space.architecture(space.sample(rng), classes)


def samples(space: Space[Any], classes: int, count: int, seed: str = "calibration") -> list[Architecture]:
    """Build random networks, which depend on `seed`."""
    rng = random.Random(seed)
    return [space.architecture(space.sample(rng), classes) for _ in range(count)]


def find_operators(points: Iterable[Architecture], size: tuple[int, int]) -> Counter[Operator]:
    """Count the distinct operators of `points`, until no new one turns up for a while or there are enough."""
    frequency: Counter[Operator] = Counter()
    without_new = 0
    for point in points:
        known = len(frequency)
        frequency.update(operators_of(point, size))
        without_new = 0 if len(frequency) > known else without_new + 1
        if without_new == PATIENCE or len(frequency) >= ENOUGH_FOUND:
            break
    return frequency


def spread(frequency: Mapping[Operator, int], most: int) -> list[Operator]:
    """Choose about `most` operators, all if there are no more.

    Each kind has as large a part of them as it has of the networks' time, roughly: what takes little may be predicted
    badly. Those of a kind are drawn at even steps of their frequencies in the order of their multiply–adds: frequent
    ones are in, and the others are spread over all sizes.
    """
    if len(frequency) <= most:
        return list(frequency)
    by_kind: dict[str, list[Operator]] = {}
    for operator in sorted(frequency, key=_size):
        by_kind.setdefault(operator.op.op, []).append(operator)
    work = {kind: sum(frequency[o] * _work(o) for o in group) for kind, group in by_kind.items()}
    chosen = []
    for kind, group in by_kind.items():
        count = max(FEWEST_OF_A_KIND, round(most * work[kind] / sum(work.values())))
        chosen += _even_steps(group, [frequency[operator] for operator in group], count)
    return chosen


def _work(operator: Operator) -> int:
    return op_madds(operator.op, operator.inputs) + MADDS_PER_VALUE * values_moved(operator.op, operator.inputs)


def _even_steps(things: list[Operator], weights: list[int], count: int) -> list[Operator]:
    """Systematic sampling: those heavier than a step, and `count` in all at even steps of the others' weights."""
    if count >= len(things):
        return things
    chosen: set[int] = set()
    others = list(range(len(things)))
    while True:
        step = sum(weights[place] for place in others) / (count - len(chosen))
        heavy = {place for place in others if weights[place] >= step}
        if not heavy:
            break
        chosen |= heavy
        others = [place for place in others if place not in heavy]
    cumulative = list(accumulate(weights[place] for place in others))
    chosen.update(others[bisect_left(cumulative, step * (n + 0.5))] for n in range(count - len(chosen)))
    return [things[place] for place in sorted(chosen)]


def _size(operator: Operator) -> tuple[int, int, str]:
    """Order operators by multiply–adds, and by maps where they have none; ties are broken alike everywhere."""
    return op_madds(operator.op, operator.inputs), sum(c * h * w for c, h, w in operator.inputs), str(operator)
