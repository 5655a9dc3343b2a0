"""The time of a search, and what its jobs take."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, stdev

from nasseg.planning.config import PlannerSettings
from nasseg.planning.job import Job, JobResult, Kind, Task
from nasseg.planning.machine import JobTimes

LATEST = 20
"""Jobs of a kind by which the next ones are expected to take their time."""
FEWEST_ENDED = 3
"""End-to-end runs that tell by themselves what the next ones take: the first to end are the fastest."""
DEVIATION_SHARE = 0.1
"""Of what a job takes, by which others of its kind deviate, as long as one alone has ended."""
LEAST_STORING_SECONDS = 1.0
"""To see that all features are there takes less."""

Taken = Mapping[Kind, Sequence[float]]
"""The seconds that the latest jobs of each kind took."""


def planned_seconds(settings: PlannerSettings, times: JobTimes | None, needs_features: bool) -> dict[Kind, float]:
    """Return what jobs of each kind take by the measured speed or, if it is unknown, their steps if these are alike."""
    full, prepare = settings.full_steps, settings.prepare_steps or settings.full_steps
    climbs: dict[Kind, float] = {stop: stop - start for start, stop in pairwise((0, *settings.rungs))}
    if times is None:
        planned: dict[Kind, float] = {"full": full, "prepare": prepare}
        return planned if needs_features else {**planned, **climbs}
    each = settings.candidates_per_job
    planned = {stop: times.trial_seconds(each * steps, each) for stop, steps in climbs.items()}
    planned |= {"full": times.run_seconds(full), "prepare": times.run_seconds(prepare)}
    # Workers of several machines take longer than all of one together.
    return {**planned, "store": times.storing_seconds / settings.concurrency}


class Clock:
    """The time of a search, and how long jobs of each kind are expected to take by those that ended."""

    def __init__(self, total_seconds: float, taken: Taken | None = None) -> None:
        self.total_seconds = total_seconds
        self.now = 0.0
        self.planned: Mapping[Kind, float] = {}
        """What jobs of each kind would take by plan; only their ratios count."""
        self.concurrency = 1
        """How many jobs run at once now: as planned, fewer where devices are kept out, more where a cluster grew."""
        self.running: dict[int, tuple[Job, float]] = {}
        """Each job that runs, by its number, and when it began."""
        self._taken: defaultdict[Kind, deque[float]] = defaultdict(lambda: deque(maxlen=LATEST))
        self._spread: dict[Kind, tuple[float, float]] = {}
        """Mean and standard deviation of these, kept, as they are asked for far more often than they change."""
        for kind, latest in (taken or {}).items():
            for seconds in latest:
                self.note(kind, seconds)

    @property
    def taken(self) -> Taken:
        """The seconds that the latest jobs of each kind took."""
        return {kind: list(seconds) for kind, seconds in self._taken.items()}

    def set(self, spent: float) -> None:
        """Set the time by the share of the budget that is spent."""
        if not math.isinf(self.total_seconds):
            self.now = spent * self.total_seconds

    def by_plan(self, spent: float, proxy_share: float, starts_at: float) -> float:
        """Rescale the `spent` share so that a final that starts at that second, not after the `proxy_share`, fits."""
        return (
            spent if math.isinf(self.total_seconds) else spent * proxy_share * self.total_seconds / max(1e-9, starts_at)
        )

    def fits(self, kind: Kind, end: float, jobs: int = 1) -> bool:
        """Whether a job of a kind that starts now ends by then, even the longest of so many."""
        return self.now + self.expected(kind, jobs=jobs) <= end

    def runs(self, task: Task) -> bool:
        """Whether any job of a task runs."""
        return any(job.task == task for job, _ in self.running.values())

    def left(self, counts: Callable[[Job], bool]) -> list[float]:
        """Return how many more seconds each of the jobs that run and count is expected to take."""
        running = [(job.kind, start) for job, start in self.running.values() if counts(job)]
        takes = {kind: self.expected(kind) for kind in {kind for kind, _ in running}}
        return [max(0.0, start + takes[kind] - self.now) for kind, start in running]

    def start(self, job: Job) -> None:
        """Note that a job begins."""
        self.running[job.number] = job, self.now

    def take_in(self, result: JobResult, is_run: bool) -> None:
        """Note that a job ended and, if it was trained, what it took; `is_run`: it is one that the final compares."""
        job, seconds = result.job, result.seconds - result.storing_seconds
        self.running.pop(job.number, None)
        if not result.was_trained or (is_run and result.outcomes[0].status != "ok"):
            return
        self.note(job.kind, seconds)
        if is_run and job.task != "full":
            self.note("full", seconds)
        if result.storing_seconds >= LEAST_STORING_SECONDS:
            self.note("store", result.storing_seconds)

    def note(self, kind: Kind, seconds: float) -> None:
        """Note what a piece of work took."""
        latest = self._taken[kind]
        latest.append(seconds)
        self._spread[kind] = fmean(latest), stdev(latest) if len(latest) > 1 else DEVIATION_SHARE * seconds

    def ended(self, kind: Kind) -> int:
        """Return how many of a kind have ended, at most `LATEST`."""
        return len(self._taken.get(kind, ()))

    def known(self, kind: Kind, rounds: int = 1, jobs: int = 1) -> float:
        """Return what nearly all jobs of a kind take, by the latest of them; 0 as long as none has ended.

        If so many `jobs` run at once, again and again, the last ends after so many `rounds` as `longest` says.
        """
        mean, deviation = self._spread.get(kind, (0.0, 0.0))
        return longest(mean, deviation, rounds, jobs)

    def expected(self, kind: Kind, rounds: int = 1, jobs: int = 1) -> float:
        """Return `known` or, as long as none of a kind or few end-to-end runs have ended, what shorter jobs tell.

        Then jobs take so many times what was planned as those did, or longer; 0 as long as none has ended.
        """
        known, planned = self.known(kind, rounds, jobs), self.planned
        if self.ended(kind) >= (FEWEST_ENDED if kind == "full" else 1) or not planned.get(kind):
            return known
        rungs = sorted((rung for rung in self._spread if isinstance(rung, int)), reverse=True)
        lower: list[Kind] = [rung for rung in rungs if not isinstance(kind, int) or rung < kind]
        whole: list[Kind] = ["prepare", "full"]
        # Heads on stored features tell of heads, and whole networks of whole ones, if possible.
        order = [*lower, *whole] if isinstance(kind, int) else [*whole, *lower]
        tells = next((each for each in order if each != kind and self.ended(each) and planned.get(each)), None)
        if tells is None:
            return known
        return max(known, planned[kind] / planned[tells] * self.known(tells, rounds, jobs))


def longest(mean: float, deviation: float, rounds: int, jobs: int) -> float:
    """Return what `rounds` jobs after each other take, in the longest of `jobs` such rows; one deviation more at least.

    The longest of n normal times is about √(2 ln n) deviations above their mean.
    """
    return rounds * mean + max(1.0, math.sqrt(2 * math.log(jobs))) * deviation * math.sqrt(rounds)
