"""Trust in what a search measured: rank correlations of its proxy, the noise between seeds, the gain on fresh ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.special import stdtrit

from nasseg.planning.candidates import Trial
from nasseg.planning.job import Outcome
from nasseg.rank_correlation import kendall, spearman

CONFIDENCE = 0.95
"""Of the interval of a gain."""


def pooled_deviation(groups: Sequence[Sequence[float]]) -> float | None:
    """Pool the standard deviation within groups: the noise of one run with one seed.

    `None` if no group has two values.
    """
    freedom = _freedom(groups)
    if freedom == 0:
        return None
    squares = sum(float(np.var(group)) * len(group) for group in groups if group)
    return float(np.sqrt(squares / freedom))


def _freedom(groups: Iterable[Sequence[float]]) -> int:
    return sum(len(group) - 1 for group in groups if group)


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
    full = {t.candidate.key: _mious(t.deciding) for t in trials}
    levels["end to end"] = {key: float(np.mean(values)) for key, values in full.items() if values}
    names = list(levels)
    pairs = [(low, high) for i, low in enumerate(names) for high in names[i + 1 :]]
    return Trust(
        agreements=tuple(_agreement(low, high, levels[low], levels[high]) for low, high in pairs),
        seed_deviation=pooled_deviation(_repeated(trials)),
    )


class Gain(BaseModel):
    """What the best network `found` has over the `baseline` in mIoU, by the mean of fresh seeds of each.

    Neither was chosen by these, so no luck of the choice is in them. The `interval` has 95 % confidence as to the
    seeds, by Student's t: all networks are taken to differ by as much between seeds. It is `None` if none has two.
    """

    model_config = ConfigDict(frozen=True)

    found: str
    baseline: str
    miou: float
    seeds: tuple[int, int]
    interval: tuple[float, float] | None

    @property
    def verdict(self) -> Literal["better", "worse", "a tie"] | None:
        """Whether the interval leaves any doubt."""
        if self.interval is None:
            return None
        low, high = self.interval
        return "better" if low > 0 else "worse" if high < 0 else "a tie"


def measure_gain(found: Trial, baseline: Trial, trials: Iterable[Trial]) -> Gain | None:
    """Compare two of the `trials` by their fresh seeds; `None` if one of them has none."""
    of_found, of_baseline = _mious(found.fresh), _mious(baseline.fresh)
    if not of_found or not of_baseline:
        return None
    difference = fmean(of_found) - fmean(of_baseline)
    groups, interval = _repeated(trials), None
    deviation = pooled_deviation(groups)
    if deviation is not None:
        quantile = float(stdtrit(_freedom(groups), (1 + CONFIDENCE) / 2))
        half = quantile * deviation * (1 / len(of_found) + 1 / len(of_baseline)) ** 0.5
        interval = difference - half, difference + half
    return Gain(
        found=found.key,
        baseline=baseline.candidate.label or baseline.key,
        miou=difference,
        seeds=(len(of_found), len(of_baseline)),
        interval=interval,
    )


def _repeated(trials: Iterable[Trial]) -> list[list[float]]:
    """Collect what only the seed decided: the end-to-end runs of each network, those that chose and the fresh ones."""
    return [_mious(runs) for trial in trials for runs in (trial.deciding, trial.fresh) if runs]


def _mious(outcomes: Mapping[int, Outcome]) -> list[float]:
    return [outcome.miou for outcome in outcomes.values() if outcome.miou is not None]


def _agreement(lower: str, upper: str, low: Mapping[str, float], high: Mapping[str, float]) -> Agreement:
    keys = [key for key in low if key in high]
    x, y = [low[key] for key in keys], [high[key] for key in keys]
    return Agreement(lower=lower, upper=upper, points=len(keys), spearman=spearman(x, y), kendall=kendall(x, y))


def _by_key(trials: Sequence[Trial], step: int) -> dict[str, float]:
    outcomes = (t.proxy.get(step) for t in trials)
    return {o.key: o.miou for o in outcomes if o is not None and o.miou is not None}
