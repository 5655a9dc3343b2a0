"""The end of a search: when candidates make way for end-to-end runs, and which of these come next."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, product
from statistics import fmean, stdev

from nasseg.planning.candidates import FIRST_FRESH_SEED, Trial, furthest_first
from nasseg.planning.config import PlannerSettings
from nasseg.planning.halving import Ladder
from nasseg.planning.job import JobResult, Kind, Outcome

FINAL_REFERENCES = 2
"""References that are trained end to end with all seeds; if a space has more, they race for it like candidates."""
LEAST_PROXY_SHARE = 0.3
"""Share of the budget for trying candidates, even if a long final would leave less; the final is then cut."""
SPARE_SHARE = 0.05
"""Share of the budget left for what a plan does not foresee."""
LATEST = 20
"""Jobs of a kind by which the next ones are expected to take their time."""
SLACK = 1.1
"""A first run may be faster than the next ones by this factor."""
WAITED_SHARE = 0.1
"""Of an end-to-end run, that workers may idle until the contenders are known."""
MOST_SEEDS = 3
"""Times the planned seeds that contenders are trained with where time is left, and at most as many fresh seeds."""

Taken = Mapping[Kind, Sequence[float]]
"""The seconds that the latest jobs of each kind took."""


def fresh_rounds(concurrency: int) -> int:
    """Return how many runs follow each other until the winner and the baseline have a fresh seed."""
    return math.ceil(2 / concurrency)


def rounds_of(runs: int, concurrency: int) -> int:
    """Return how many end-to-end runs follow each other in a final: so many, then the fresh seeds."""
    return math.ceil(runs / concurrency) + fresh_rounds(concurrency)


class Clock:
    """The time of a search, and how long jobs of each kind are expected to take by those that ended."""

    def __init__(self, total_seconds: float, taken: Taken | None = None) -> None:
        self.total_seconds = total_seconds
        self.now = 0.0
        self.concurrency = 1
        """How many jobs run at once now: as planned, fewer where devices are kept out, more where a cluster grew."""
        self._taken: defaultdict[Kind, deque[float]] = defaultdict(lambda: deque(maxlen=LATEST))
        for kind, seconds in (taken or {}).items():
            self._taken[kind].extend(seconds)

    @property
    def taken(self) -> Taken:
        """The seconds that the latest jobs of each kind took."""
        return {kind: list(seconds) for kind, seconds in self._taken.items() if seconds}

    def set(self, spent: float) -> None:
        """Set the time by the share of the budget that is spent."""
        if not math.isinf(self.total_seconds):
            self.now = spent * self.total_seconds

    def by_plan(self, spent: float, proxy_share: float, starts_at: float) -> float:
        """Rescale the `spent` share so that a final that starts at that second, not after the `proxy_share`, fits."""
        return (
            spent if math.isinf(self.total_seconds) else spent * proxy_share * self.total_seconds / max(1e-9, starts_at)
        )

    def fits(self, kind: Kind, end: float) -> bool:
        """Whether a job of a kind that starts now ends by then."""
        return self.now + self.expected(kind) <= end

    def note(self, kind: Kind, seconds: float) -> None:
        """Note what a job took."""
        self._taken[kind].append(seconds)

    def expected(self, kind: Kind) -> float:
        """Return what nearly all jobs of a kind take, by the latest of them; 0 as long as none has ended."""
        latest = self._taken[kind]
        if len(latest) < 2:
            return SLACK * latest[0] if latest else 0.0
        return fmean(latest) + stdev(latest)


class Contenders:
    """Those that the final compares: the best candidates of the top rung, and the best of the references."""

    def __init__(self, settings: PlannerSettings, ladder: Ladder, references: Sequence[Trial]) -> None:
        self._most, self._ladder, self._references = settings.finalists, ladder, references

    @property
    def most(self) -> int:
        """How many there are at most."""
        return self._most + min(FINAL_REFERENCES, len(self._references))

    @property
    def missing(self) -> int:
        """How many finalists there are yet to find."""
        return self._most - len(self.finalists())

    def ranked(self) -> Iterator[Trial]:
        """Yield the candidates of the top rung, best first, without the references."""
        return (trial for trial in self._ladder.ranked() if trial not in self._references)

    def finalists(self) -> list[Trial]:
        """Return the best of these."""
        return list(islice(self.ranked(), self._most))

    def all(self) -> list[Trial]:
        """Return the finalists, then the references that did not fail or, of many, the best."""
        trained = [trial for trial in self._references if not trial.failed]
        if len(trained) > FINAL_REFERENCES:
            trained = sorted(trained, key=self._ladder.place)[:FINAL_REFERENCES]
        return [*self.finalists(), *trained]


class Final:
    """The end-to-end runs of a search, one seed of all contenders before the next of any.

    The best of several is better by its luck, too, so the last runs are fresh seeds of the winner and of the best
    reference, by `score`: from `FIRST_FRESH_SEED` on, one each for a budget of trials, else as many as time allows. A
    worker that has nothing else to do starts them early, for those that are ahead by then.

    Candidates make way when what is left is just enough for the final: by plan, until a run has ended, then by what
    runs take. If they take so long that less than `LEAST_PROXY_SHARE` of the budget would be left for candidates, the
    final has fewer rounds; if not even one can end in time, it has none. No run starts that cannot end in time. Where
    time is left after the planned runs, more candidates of the top rung are trained, then more seeds.
    """

    def __init__(
        self, settings: PlannerSettings, clock: Clock, shared_stage: bool, score: Callable[[Outcome], float]
    ) -> None:
        self._settings, self._clock, self._score = settings, clock, score
        self._shared_stage = shared_stage
        clock.concurrency = settings.concurrency
        self._in_flight: set[tuple[str, int]] = set()
        self._elsewhere: set[tuple[str, int]] = set()

    def starts_at(self, contenders: int, trained: Iterable[Trial], climbing: bool = False) -> float:
        """Return the second at which candidates make way for so many `contenders`, some of them `trained`.

        If some are still `climbing` to the top rung, that takes its time before.
        """
        settings, total = self._settings, self._clock.total_seconds
        if math.isinf(total):
            return math.inf
        each = self._each
        if not each:
            return settings.proxy_share * total
        before = self._clock.expected("prepare") if self._shared_stage or self._clock.concurrency == 1 else 0.0
        most = (1 - SPARE_SHARE - LEAST_PROXY_SHARE) * total - before
        done = sum(min(settings.seeds, len(trial.deciding)) for trial in trained)
        rounds = rounds_of(max(0, contenders * settings.seeds - done), self._clock.concurrency)
        rounds = min(rounds, max(1, int(most / each)))
        start = (1 - SPARE_SHARE) * total - rounds * each - (self._climb if climbing else 0.0)
        return start if max(start, self._clock.now) + each <= total else (1 - SPARE_SHARE) * total

    def waits_for(self, kinds: Iterable[Kind]) -> bool:
        """Whether the final waits for jobs of these kinds, which may find better contenders, as it starts."""
        return max(map(self._clock.expected, kinds)) <= WAITED_SHARE * self._each

    def start(self, trial: Trial, seed: int) -> None:
        """Note that a run starts."""
        self._in_flight.add((trial.key, seed))

    def leave(self, trial: Trial, seed: int) -> None:
        """Note that a run is another search's."""
        self._elsewhere.add((trial.key, seed))

    def is_open(self, trial: Trial, seed: int) -> bool:
        """Whether a run has neither ended nor started, here or elsewhere."""
        run = trial.key, seed
        return seed not in trial.full and run not in self._in_flight and run not in self._elsewhere

    def end(self, trial: Trial, result: JobResult) -> None:
        """Note that a run ended and, if it did not fail, what it took."""
        job = result.job
        self._in_flight.discard((trial.key, job.seed))
        if result.outcomes[0].status == "ok":
            self._clock.note("full", result.seconds - result.storing_seconds)
            if job.task == "prepare":
                self._clock.note("prepare", result.seconds)

    @property
    def _each(self) -> float:
        return self._clock.expected("full")

    @property
    def _climb(self) -> float:
        """What the way from the first rung to the top takes, by the steps as long as no run to a rung has ended."""
        first, *others = self._settings.rungs
        each = self._clock.expected(first) / first
        ways = zip((first, *others), others, strict=False)
        return sum(self._clock.expected(stop) or each * (stop - start) for start, stop in ways)

    def next_run(
        self, contenders: Sequence[Trial], ranked: Iterable[Trial] | None, references: Sequence[Trial]
    ) -> tuple[Trial, int] | None:
        """Find the next run that can end in time.

        `ranked` are the candidates of the top rung, best first; `None` as long as contenders are not settled.
        """
        clock, seeds = self._clock, range(self._settings.seeds)
        if clock.now + self._each > clock.total_seconds:
            return None
        planned = self._first_open((trial, seed) for seed, trial in product(seeds, contenders))
        if planned is not None or ranked is None:
            return planned
        ranked = list(ranked)
        needed = (1 + fresh_rounds(clock.concurrency)) * self._each
        if not math.isinf(clock.total_seconds) and clock.now + needed <= clock.total_seconds:
            more = range(len(seeds), MOST_SEEDS * len(seeds))
            more_seeds = ((trial, seed) for seed, trial in product(more, contenders))
            further = self._first_open(chain(product(ranked, seeds), more_seeds))
            if further is not None:
                return further
        return self._fresh_run(ranked, references)

    def _fresh_run(self, ranked: Iterable[Trial], references: Iterable[Trial]) -> tuple[Trial, int] | None:
        """Find the next fresh seed of the best of the ranked and of the baseline, of which every one has as many."""
        if not math.isinf(self._clock.total_seconds):
            most = max(MOST_SEEDS * self._settings.seeds, math.ceil(self._clock.concurrency / 2))
        elif any(seed < FIRST_FRESH_SEED for _, seed in self._in_flight):
            return None
        else:
            most = 1
        found = sorted(filter(_ended, ranked), key=self._place)[:1]
        baseline = furthest_first(filter(_ended, references), self._score)[:1]
        seeds = range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + most)
        return self._first_open((trial, seed) for seed, trial in product(seeds, baseline + found)) if found else None

    def _place(self, trial: Trial) -> tuple[float, int]:
        return -(trial.mean_of(self._score) or 0.0), trial.number

    def _first_open(self, runs: Iterable[tuple[Trial, int]]) -> tuple[Trial, int] | None:
        return next((run for run in runs if self.is_open(*run)), None)


def _ended(trial: Trial) -> bool:
    """Whether an end-to-end run of it gave a score."""
    return trial.standing is not None and trial.standing.end_to_end
