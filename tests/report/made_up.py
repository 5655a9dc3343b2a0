"""A search that never was: five candidates, two rungs, two of them trained end to end."""

from nasseg.cost.latency import Latency
from nasseg.report.rows import Row, make_rows
from nasseg.search.job import Candidate, Outcome, Trial
from search_spaces.dpc import ASPP, DPC, PUBLISHED, Cell

SPACE = DPC()
RUNGS = (100, 300)


def candidate(cell: Cell, key: str, label: str | None = None) -> Candidate:
    return Candidate(key=key, choice=cell.model_dump(mode="json", exclude_none=True), label=label)


def ok(key: str, step: int, miou: float, madds: int = 2_000_000_000) -> Outcome:
    return Outcome(
        key=key, status="ok", step=step, miou=miou, class_iou=(miou, None, miou / 2), madds=madds, params=3_500_000
    )


def make_trials() -> list[Trial]:
    found = Cell(branches=(PUBLISHED.branches[0], *ASPP.branches[:4]))
    aspp, best, stopped, broken = "a" * 20, "b" * 20, "c" * 20, "d" * 20
    nan = Outcome(key=broken, status="nonfinite", step=37, message="the loss is nan at step 37")
    return [
        Trial(
            candidate(ASPP, aspp, "aspp"),
            {100: ok(aspp, 100, 0.5), 300: ok(aspp, 300, 0.6)},
            {0: ok(aspp, 900, 0.7), 1: ok(aspp, 900, 0.72)},
        ),
        Trial(
            candidate(found, best),
            {100: ok(best, 100, 0.55, 1_000_000_000), 300: ok(best, 300, 0.65, 1_000_000_000)},
            {0: ok(best, 900, 0.75, 1_000_000_000), 1: ok(best, 900, 0.77, 1_000_000_000)},
        ),
        Trial(candidate(PUBLISHED, stopped), {100: ok(stopped, 100, 0.4)}),
        Trial(candidate(SPACE.canonical(PUBLISHED), broken), {37: nan}),
        Trial(candidate(PUBLISHED, "e" * 20)),
    ]


def latency(median_ms: float) -> Latency:
    return Latency(
        median_ms=median_ms, p95_ms=median_ms + 1, runs=20, device="TestChip 9", dtype="float32", batch=1,
        size=(160, 320), threads=2, torch="2.13",
    )  # fmt: skip


def score(trial: Trial) -> float | None:
    """The mean end-to-end mIoU, else the proxy's."""
    full = [o.miou for o in trial.full.values() if o.miou is not None]
    proxy = [o.miou for o in trial.proxy.values() if o.miou is not None]
    return sum(full) / len(full) if full else proxy[-1] if proxy else None


def rows() -> list[Row]:
    return make_rows(make_trials(), RUNGS, score, {"a" * 20: latency(30.0), "b" * 20: latency(20.0)})
