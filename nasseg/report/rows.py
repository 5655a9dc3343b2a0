"""One row a candidate: what every table and plot of a search shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal

from nasseg.planning.job import Candidate, Trial

if TYPE_CHECKING:
    from nasseg.cost.latency import Latency

RowStatus = Literal["complete", "stopped", "nonfinite", "failed", "running"]
Score = Callable[[Trial], float | None]
"""The objective's value of a trial, from the best that is known of it."""


@dataclass(frozen=True)
class Row:
    """A candidate with its mIoU by rung (training step) and by seed of the end-to-end training.

    `complete` reached the top rung, `stopped` was left at a lower one, `running` has no outcome yet. The predicted
    latency is a table's. One that is not `feasible` breaks a limit.
    """

    key: str
    label: str | None
    choice: Mapping[str, Any]
    status: RowStatus
    proxy: Mapping[int, float]
    full: Mapping[int, float]
    class_iou: tuple[float | None, ...] = ()
    params: int | None = None
    madds: int | None = None
    predicted_latency_ms: float | None = None
    feasible: bool = True
    latency: Latency | None = None
    score: float | None = None
    message: str | None = None

    @property
    def name(self) -> str:
        """The reference's name, or the first digits of the key."""
        return self.label or self.key[:10]

    @property
    def latency_ms(self) -> float | None:
        """Median of its measured latency."""
        return None if self.latency is None else self.latency.median_ms

    @property
    def step(self) -> int | None:
        """The highest rung it finished, in training steps."""
        return max(self.proxy, default=None)

    @property
    def proxy_miou(self) -> float | None:
        """Mean IoU at the highest rung it finished."""
        return self.proxy[max(self.proxy)] if self.proxy else None

    @property
    def full_miou(self) -> float | None:
        """Mean over seeds of the end-to-end mIoU."""
        return fmean(self.full.values()) if self.full else None

    @property
    def full_miou_deviation(self) -> float | None:
        """Sample standard deviation over seeds, from two seeds on."""
        return stdev(self.full.values()) if len(self.full) > 1 else None


def name_of(candidate: Candidate) -> str:
    """The candidate's name in tables, plots and folders."""
    return candidate.label or candidate.key[:10]


def make_rows(
    trials: Sequence[Trial],
    rungs: Sequence[int],
    score: Score,
    latency: Mapping[str, Latency] | None = None,
) -> list[Row]:
    """The rows of `trials`, in their order; `latency` is by key, as far as it was measured."""
    return [_row(trial, max(rungs), score, (latency or {}).get(trial.candidate.key)) for trial in trials]


def _row(trial: Trial, top: int, score: Score, latency: Latency | None) -> Row:
    outcomes = [*trial.proxy.values(), *trial.full.values()]
    proxy = {step: o.miou for step, o in sorted(trial.proxy.items()) if o.status == "ok" and o.miou is not None}
    full = {seed: o.miou for seed, o in sorted(trial.full.items()) if o.status == "ok" and o.miou is not None}
    broken = next((o for o in outcomes if o.status != "ok"), None)
    status: RowStatus
    if broken is not None:
        status = "nonfinite" if broken.status == "nonfinite" else "failed"
    elif proxy or full:
        status = "complete" if top in proxy else "stopped"
    else:
        status = "running"
    class_ious = [trial.full[seed].class_iou for seed in full] or [trial.proxy[step].class_iou for step in proxy][-1:]
    return Row(
        key=trial.candidate.key,
        label=trial.candidate.label,
        choice=trial.candidate.choice,
        status=status,
        proxy=proxy,
        full=full,
        class_iou=_mean_by_class(class_ious),
        params=next((o.params for o in outcomes if o.params is not None), None),
        madds=next((o.madds for o in outcomes if o.madds is not None), None),
        predicted_latency_ms=next((o.latency_ms for o in outcomes if o.latency_ms is not None), None),
        feasible=trial.candidate.feasible,
        latency=latency,
        score=score(trial),
        message=None if broken is None else broken.message,
    )


def _mean_by_class(ious: Sequence[tuple[float | None, ...]]) -> tuple[float | None, ...]:
    """Mean over trainings of each class's IoU, where it has one."""
    columns = [[iou for iou in column if iou is not None] for column in zip(*ious, strict=True)]
    return tuple(fmean(column) if column else None for column in columns)
