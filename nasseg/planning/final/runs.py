"""The end of a search: when candidates make way for end-to-end runs, and which of these come next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, product

from nasseg.planning.candidates import FIRST_FRESH_SEED, Trial, furthest_first
from nasseg.planning.config import PlannerSettings
from nasseg.planning.final.clock import Clock, planned_seconds
from nasseg.planning.final.estimate import estimated_scores
from nasseg.planning.halving import Ladder
from nasseg.planning.job import Kind, Outcome
from nasseg.planning.machine import JobTimes

FINAL_REFERENCES = 2
"""References that are trained end to end with all seeds; if a space has more, they race for it like candidates."""
LEAST_PROXY_SHARE = 0.3
"""Share of the budget for trying candidates, even if a long final would leave less; the final is then cut."""
SPARE_SHARE = 0.02
"""Share of the budget left for what a plan does not foresee."""
WAITED_SHARE = 0.1
"""Of an end-to-end run, that workers may idle until the contenders are known."""
FRESH_SPARE_SHARE = 0.05
"""Share of the budget by which runs beyond the planned ones may take longer before they make way for fresh seeds."""
FRESH_ROWS = 10
"""Fresh seeds are left time if even the longest of so many rows of runs would leave it."""
MOST_SEEDS = 3
"""Times the planned seeds that contenders are trained with where time is left, and at most as many fresh seeds."""


def fresh_rounds(concurrency: int) -> int:
    """Return how many runs follow each other until the winner and the baseline have a fresh seed."""
    return math.ceil(2 / concurrency)


def rounds_of(runs: int, concurrency: int) -> int:
    """Return how many end-to-end runs follow each other in a final: so many, then the fresh seeds."""
    return math.ceil(runs / concurrency) + fresh_rounds(concurrency)


def rounds_in(total_seconds: float, before_seconds: float, run_seconds: float, runs: int, concurrency: int) -> int:
    """Return how many rounds a final of so many runs has if `LEAST_PROXY_SHARE` is left for candidates, at least one.

    No candidate can be trained in the seconds before.
    """
    most_seconds = (1 - SPARE_SHARE - LEAST_PROXY_SHARE) * total_seconds - before_seconds
    return min(rounds_of(max(0, runs), concurrency), max(1, int(most_seconds / run_seconds)))


class Contenders:
    """Those that the final compares: the best candidates of the top rung, and the best of the references."""

    def __init__(self, settings: PlannerSettings, ladder: Ladder, references: Sequence[Trial]) -> None:
        self._most, self._ladder, self._references = settings.finalists, ladder, references
        self.in_haste = False
        """Whether there is no time for any to climb to the top rung."""
        self.untried: Sequence[Trial] = ()
        """Those that are trained end to end at once, as there is no time for any short run before."""

    @property
    def most(self) -> int:
        """How many there are at most."""
        return self._most + min(FINAL_REFERENCES, len(self._references))

    @property
    def missing(self) -> int:
        """How many finalists there are yet to find."""
        return self._most - len(self.finalists())

    @property
    def are_tried(self) -> bool:
        """Whether any new candidate has finished a rung."""
        return any(map(self._is_new, self._ladder.best_first()))

    def ranked(self) -> Iterator[Trial]:
        """Yield the candidates of the top rung, best first, without the references; in haste, those below too.

        The first is the one with the best score: a front ranks the cheapest and the dearest first, as they stand alone.
        """
        best = self._ladder.best
        ranked = self._ladder.best_first() if self.in_haste else self._ladder.ranked()
        others = (trial for trial in ranked if trial is not best)
        return filter(self._is_new, chain([] if best is None else [best], others, self.untried))

    def finalists(self) -> list[Trial]:
        """Return the best of these."""
        return list(islice(self.ranked(), self._most))

    def all(self) -> list[Trial]:
        """Return the finalists, then the references that did not fail or, of many, the best."""
        trained = [trial for trial in self._references if not trial.failed]
        if len(trained) > FINAL_REFERENCES:
            trained = sorted(trained, key=self._ladder.place)[:FINAL_REFERENCES]
        return [*self.finalists(), *trained]

    def _is_new(self, trial: Trial) -> bool:
        return trial not in self._references and not trial.failed


class Final:
    """The end-to-end runs of a search, one seed of all contenders before the next of any.

    The best of several is better by its luck, too, so the last runs are fresh seeds of the winner (`estimated_scores`)
    and of the best reference, by `score`: from `FIRST_FRESH_SEED` on, one each for a budget of trials, else as many as
    time allows. A worker that has nothing else to do starts them early, for those that are ahead by then.

    Candidates make way when what is left is just enough for the final: by plan, until a run has ended, then by what
    runs take. If they take so long that less than `LEAST_PROXY_SHARE` of the budget would be left for candidates, the
    final has fewer rounds; if not even one can end in time, it has none. No run starts that cannot end in time, nor one
    of a second seed that would leave no time for the fresh ones. Where time is left after the planned runs, more
    candidates of the top rung are trained, then more seeds.
    """

    def __init__(
        self,
        settings: PlannerSettings,
        clock: Clock,
        needs_features: bool,
        score: Callable[[Outcome], float],
        times: JobTimes | None = None,
    ) -> None:
        self._settings, self._clock, self._score = settings, clock, score
        self._needs_features = needs_features
        clock.concurrency = settings.concurrency
        clock.planned = planned_seconds(settings, times, needs_features)
        self._in_flight: set[tuple[str, int]] = set()
        self._elsewhere: set[tuple[str, int]] = set()
        self._estimates: tuple[frozenset[tuple[int, int]], Mapping[Trial, float]] | None = None

    def starts_at(self, contenders: int, trained: Iterable[Trial], missing: int = 0) -> float:
        """Return the second at which candidates make way for so many `contenders`, some of them `trained`.

        If finalists are `missing`, others climb to the top rung before. As long as all are, rounds are given up for
        them, but for one, and then the climb.
        """
        settings, total = self._settings, self._clock.total_seconds
        if math.isinf(total):
            return math.inf
        clock, each = self._clock, self._clock.expected("full")
        if not each:
            return settings.proxy_share * total
        before = clock.known("prepare") + (self._storing_seconds or clock.known("store"))
        done = sum(min(settings.seeds, len(trial.deciding)) for trial in trained)
        rounds = rounds_in(total, before, each, contenders * settings.seeds - done, clock.concurrency)
        climb = self._climb if missing else 0.0
        starts = [
            (1 - SPARE_SHARE) * total - clock.expected("full", left, clock.concurrency) - climb
            for left in range(rounds, 0, -1)
        ]
        start = starts[0]
        if settings.finalists and missing == settings.finalists:
            earliest = clock.now + self.first_seconds
            start = next((start for start in starts if start > earliest), starts[-1] + climb)
        return start if max(start, clock.now) + each <= total else (1 - SPARE_SHARE) * total

    @property
    def first_seconds(self) -> float:
        """What passes until a candidate that is tried next has finished the first rung."""
        clock = self._clock
        preparing = clock.left(lambda job: job.task == "prepare")
        return sum(preparing) + self._storing_seconds + clock.expected(self._settings.rungs[0])

    @property
    def is_pressed(self) -> bool:
        """Whether no run can end in time that waits until candidates have climbed to the top rung."""
        return not self.has_time(after_seconds=self._climb)

    def waits_for(self, kinds: Iterable[Kind]) -> bool:
        """Whether the final waits for jobs of these kinds, which may find better contenders, as it starts."""
        return max(map(self._clock.known, kinds)) <= WAITED_SHARE * self._clock.expected("full")

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

    def end(self, trial: Trial, seed: int) -> None:
        """Note that a run ended."""
        self._in_flight.discard((trial.key, seed))

    def has_time(self, after_seconds: float = 0.0) -> bool:
        """Whether a run that starts after some seconds can end in time, even as the longest of those in flight."""
        clock = self._clock
        return clock.now + after_seconds + clock.expected("full", jobs=1 + len(self._in_flight)) <= clock.total_seconds

    def comes_up_after(self, settled: bool) -> float:
        """Return the seconds until a run may come up that is not open yet.

        That is as the next job ends or, once contenders are settled, the last run, as fresh seeds wait for all of them.
        """
        left = self._clock.left(lambda job: job.task == "full" or not settled)
        return (max if settled else min)(left, default=0.0)

    @property
    def _storing_seconds(self) -> float:
        """What storing the features takes, as long as that is ahead of the first short run to end."""
        stored = not self._needs_features or self._clock.ended(self._settings.rungs[0])
        return 0.0 if stored else self._clock.expected("store")

    @property
    def _climb(self) -> float:
        """What the way from the first rung to the top takes."""
        return sum(map(self._clock.expected, self._settings.rungs[1:]))

    def next_run(
        self, contenders: Sequence[Trial], ranked: Iterable[Trial] | None, references: Sequence[Trial]
    ) -> tuple[Trial, int] | None:
        """Find the next run that can end in time (`has_time`).

        `ranked` are the candidates of the top rung, best first; `None` as long as contenders are not settled.
        """
        clock, seeds = self._clock, range(self._settings.seeds)
        if not self.has_time():
            return None
        planned = self._first_open((trial, seed) for seed, trial in product(seeds, contenders))
        rounds = 1 + fresh_rounds(clock.concurrency)
        fresh_seconds = clock.expected("full", rounds, max(FRESH_ROWS, clock.concurrency))
        leaves_fresh = clock.now + fresh_seconds <= clock.total_seconds
        if planned is not None and (ranked is None or planned[1] == 0 or leaves_fresh):
            return planned
        if ranked is None:
            return self._early_run(contenders)
        ranked = list(ranked)
        if leaves_fresh and not math.isinf(clock.total_seconds):
            is_tight = clock.now + fresh_seconds > (1 - FRESH_SPARE_SHARE) * clock.total_seconds
            if is_tight and (fresh := self._fresh_run(ranked, references, most=1)) is not None:
                return fresh
            more = range(len(seeds), MOST_SEEDS * len(seeds))
            more_seeds = ((trial, seed) for seed, trial in product(more, contenders))
            further = self._first_open(chain(product(ranked, seeds), more_seeds))
            if further is not None:
                return further
        return self._fresh_run(ranked, references)

    def _early_run(self, references: Sequence[Trial]) -> tuple[Trial, int] | None:
        """Find a fresh seed of a reference for a worker that would wait for as long, as nothing else is known yet."""
        waits_long = self._settings.prepare_steps is None and not self._clock.expected("full")
        if math.isinf(self._clock.total_seconds) or not waits_long:
            return None
        return self._first_open((trial, seed) for seed, trial in product(self._fresh_seeds, references))

    def _fresh_run(
        self, ranked: Iterable[Trial], references: Iterable[Trial], most: int | None = None
    ) -> tuple[Trial, int] | None:
        """Find the next fresh seed of the best of the ranked and of the baseline, of which every one has as many.

        They get as many as there are at `most`, if that is given.
        """
        if math.isinf(self._clock.total_seconds) and any(seed < FIRST_FRESH_SEED for _, seed in self._in_flight):
            return None
        found, references = list(filter(_ended, ranked)), list(filter(_ended, references))
        if not found:
            return None
        scores = self._estimated([*found, *references])
        best = min(found, key=lambda trial: (-scores[trial], trial.number))
        pair = [*furthest_first(references, self._score)[:1], best]
        return self._first_open((trial, seed) for seed, trial in product(self._fresh_seeds[:most], pair))

    def _estimated(self, ended: Sequence[Trial]) -> Mapping[Trial, float]:
        """Return `estimated_scores`, made anew only where something has ended."""
        known = frozenset((trial.number, len(trial.full)) for trial in ended)
        if self._estimates is None or self._estimates[0] != known:
            self._estimates = known, estimated_scores(ended, self._settings.rungs[-1], self._score)
        return self._estimates[1]

    @property
    def _fresh_seeds(self) -> range:
        most = 1
        if not math.isinf(self._clock.total_seconds):
            most = max(MOST_SEEDS * self._settings.seeds, self._clock.concurrency)
        return range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + most)

    def _first_open(self, runs: Iterable[tuple[Trial, int]]) -> tuple[Trial, int] | None:
        return next((run for run in runs if self.is_open(*run)), None)


def _ended(trial: Trial) -> bool:
    """Whether an end-to-end run of it gave a score."""
    return trial.standing is not None and trial.standing.end_to_end
