"""Trust in a proxy: rank correlations, and the noise between seeds against which to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from nasseg.planning.candidates import Trial
from nasseg.rank_correlation import kendall, spearman


def pooled_deviation(groups: Sequence[Sequence[float]]) -> float | None:
    """Pool the standard deviation within groups: the noise of one run with one seed.

    `None` if no group has two values.
    """
    freedom = sum(len(group) - 1 for group in groups if group)
    if freedom == 0:
        return None
    squares = sum(float(np.var(group)) * len(group) for group in groups if group)
    return float(np.sqrt(squares / freedom))


class Agreement(BaseModel):
    """How well the order at one training length agrees with the order at a longer one."""

    model_config = ConfigDict(frozen=True)

    lower: str
    upper: str
    points: int
    spearman: float | None
    kendall: float | None


class Trust(BaseModel):
    """How well each rung of a search ranks, and the deviation of an end-to-end mIoU between seeds."""

    model_config = ConfigDict(frozen=True)

    agreements: tuple[Agreement, ...]
    seed_deviation: float | None


def measure_trust(trials: Sequence[Trial], rungs: Sequence[int]) -> Trust:
    """Correlate the mIoU ranks of every two rungs, and of every rung with the mean of the end-to-end runs.

    Each pair is compared over the candidates that have both. At higher rungs these are the promoted ones: a narrower
    range, with a lower correlation than over all candidates.
    """
    levels = {f"step {step}": _by_key(trials, step) for step in rungs}
    full = {t.candidate.key: [o.miou for o in t.full.values() if o.miou is not None] for t in trials}
    levels["end to end"] = {key: float(np.mean(values)) for key, values in full.items() if values}
    names = list(levels)
    pairs = [(low, high) for i, low in enumerate(names) for high in names[i + 1 :]]
    return Trust(
        agreements=tuple(_agreement(low, high, levels[low], levels[high]) for low, high in pairs),
        seed_deviation=pooled_deviation(list(full.values())),
    )


def _agreement(lower: str, upper: str, low: Mapping[str, float], high: Mapping[str, float]) -> Agreement:
    keys = [key for key in low if key in high]
    x, y = [low[key] for key in keys], [high[key] for key in keys]
    return Agreement(lower=lower, upper=upper, points=len(keys), spearman=spearman(x, y), kendall=kendall(x, y))


def _by_key(trials: Sequence[Trial], step: int) -> dict[str, float]:
    outcomes = (t.proxy.get(step) for t in trials)
    return {o.key: o.miou for o in outcomes if o is not None and o.miou is not None}
