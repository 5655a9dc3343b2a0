"""The weights of classes in the loss, as users give them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nasseg.data.checking.survey import Show, silent, survey
from nasseg.data.dataset import Split

BALANCED = "balanced"


def class_weights_for(given: str | Sequence[float], split: Split, show: Show = silent) -> tuple[float, ...]:
    """Return a weight for each class of a split: numbers as given, or joined by commas, or `balanced` by its masks.

    Balanced ones are `Survey.balanced_weights`, for which the split is read, as `show` is told. Raises `ValueError` for
    anything else, and for another number of classes.
    """
    if given == BALANCED:
        return survey(split, show).balanced_weights()
    try:
        weights = tuple(float(weight) for weight in (given.split(",") if isinstance(given, str) else given))
    except ValueError:
        weights = ()
    if not weights or not all(0 <= weight < math.inf for weight in weights):
        raise ValueError(f"class_weights is {given!r}, but must be {BALANCED} or numbers like 1,1,5")
    if len(weights) != len(split.classes):
        raise ValueError(
            f"class_weights are {len(weights)}, but the data has {len(split.classes)} classes; give a number for each, "
            f"or {BALANCED}"
        )
    return weights
