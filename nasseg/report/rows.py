"""One row per candidate, shared by every table and plot of a search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from nasseg.planning.candidates import Trial, TrialStatus
from nasseg.planning.job import Candidate

if TYPE_CHECKING:
    from nasseg.cost.latency import Latency


@dataclass(frozen=True)
class Row:
    """A candidate with its mIoU by rung (training step) and by seed of the end-to-end training, deciding and `fresh`.

    `rung_runs` is the name of the trainings up to a rung: `proxy` on stored features, `short run` of a whole network.

    `complete` reached the top rung, `stopped` was left at a lower one, `running` has no outcome yet. The predicted
    latency comes from a table; the measured one counts only `by_measurement`, on the table's device. A candidate that
    violates a limit is not `feasible`.
    """

    key: str
    label: str | None
    choice: Mapping[str, object]
    status: TrialStatus
    proxy: Mapping[int, float]
    full: Mapping[int, float]
    fresh: Mapping[int, float] = field(default_factory=dict)
    class_iou: tuple[float | None, ...] = ()
    params: int | None = None
    madds: int | None = None
    predicted_latency_ms: float | None = None
    feasible: bool = True
    latency: Latency | None = None
    score: float | None = None
    message: str | None = None
    rung_runs: str = "proxy"
    by_measurement: bool = True

    @property
    def name(self) -> str:
        """The reference's name, or the first digits of the key."""
        return self.label or self.key[:10]

    @property
    def latency_ms(self) -> float | None:
        """The median of its measured latency."""
        return None if self.latency is None else self.latency.median_ms

    @property
    def step(self) -> int | None:
        """The highest rung it finished, in training steps."""
        return max(self.proxy, default=None)

    @property
    def proxy_miou(self) -> float | None:
        """The mIoU at the highest rung it finished."""
        return self.proxy[max(self.proxy)] if self.proxy else None

    @property
    def full_miou(self) -> float | None:
        """The mean over seeds of the end-to-end mIoU."""
        return fmean(self.full.values()) if self.full else None

    @property
    def full_miou_deviation(self) -> float | None:
        """The sample standard deviation over seeds, from two seeds on."""
        return stdev(self.full.values()) if len(self.full) > 1 else None

    @property
    def fresh_miou(self) -> float | None:
        """The mean of the end-to-end mIoU over fresh seeds."""
        return fmean(self.fresh.values()) if self.fresh else None


def name_of(candidate: Candidate) -> str:
    """Name the candidate in tables, plots and folders."""
    return candidate.label or candidate.key[:10]


def rung_runs_of(rows: Iterable[Row]) -> str:
    """Name the trainings up to a rung, which are the same for all rows of a search."""
    return next((row.rung_runs for row in rows), "proxy")


def make_row(
    trial: Trial,
    top: int,
    score: float | None,
    latency: Latency | None,
    rung_runs: str = "proxy",
    by_measurement: bool = True,
) -> Row:
    """Make the row of a candidate on the way to the rung at step `top`, with its latency if measured."""
    outcomes = [*trial.proxy.values(), *trial.full.values()]
    proxy = {step: o.miou for step, o in sorted(trial.proxy.items()) if o.status == "ok" and o.miou is not None}
    full, fresh = (
        {seed: o.miou for seed, o in sorted(runs.items()) if o.status == "ok" and o.miou is not None}
        for runs in (trial.deciding, trial.fresh)
    )
    broken = next((o for o in outcomes if o.status != "ok"), None)
    class_ious = [trial.full[seed].class_iou for seed in full] or [trial.proxy[step].class_iou for step in proxy][-1:]
    return Row(
        key=trial.candidate.key,
        label=trial.candidate.label,
        choice=trial.candidate.choice,
        status=trial.status(top),
        proxy=proxy,
        full=full,
        fresh=fresh,
        class_iou=_mean_by_class(class_ious),
        params=trial.costs.params,
        madds=trial.costs.madds,
        predicted_latency_ms=trial.costs.latency_ms,
        feasible=trial.candidate.feasible,
        latency=latency,
        score=score,
        message=None if broken is None else broken.message,
        rung_runs=rung_runs,
        by_measurement=by_measurement,
    )


def _mean_by_class(ious: Sequence[tuple[float | None, ...]]) -> tuple[float | None, ...]:
    """Average each class's IoU over the runs in which it has one."""
    columns = [[iou for iou in column if iou is not None] for column in zip(*ious, strict=True)]
    return tuple(fmean(column) if column else None for column in columns)
