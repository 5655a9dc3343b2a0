"""The candidates of a search, with what is known of each, and those that were rejected."""

from __future__ import annotations

import statistics
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, NamedTuple

from nasseg.foreign import damaged
from nasseg.planning.config import PlannerSettings
from nasseg.planning.job import Candidate, Costs, Outcome
from nasseg.run_folder import file_name
from nasseg.space import Choice, Space


class Standing(NamedTuple):
    """How far a candidate was trained, in ascending order; `step` is the rung's, 0 end to end."""

    end_to_end: bool
    step: int


TrialStatus = Literal["complete", "stopped", "nonfinite", "failed", "running"]

FIRST_FRESH_SEED = 1000
"""End-to-end runs from this seed on were started after the choice: they measure it, but do not decide it."""
PROXY_SEED = 1_000_000
"""To which a search's seed is added for proxies. No end-to-end run has one of these: one from pretrained weights that
is no longer than a short run would else be the same run again."""


@dataclass(eq=False)
class Trial:
    """A candidate and all that is known of it; `number` counts candidates in the order they were proposed.

    `proxy` holds its outcomes by the step they reached, `full` its end-to-end outcomes by seed, the `deciding` ones and
    the `fresh` ones from `FIRST_FRESH_SEED` on. `level` is the number of rungs it has finished and `values` the
    objectives at the last of them, to be maximised: 0 and `None` during the first rung; `below` holds the values at the
    rungs below that, the lowest first. It is `final` once no rung is left for it: at the top rung, or without values,
    because it failed or, at level 0, because it violates a limit and is not trained. One that another search of the
    study has claimed is trained `elsewhere`.

    `point` is its choice or, as a search has many and looks at few, what reads it from the candidate.
    """

    candidate: Candidate
    point: Choice | Callable[[Candidate], Choice]
    number: int = 0
    proxy: dict[int, Outcome] = field(default_factory=dict)
    full: dict[int, Outcome] = field(default_factory=dict)
    level: int = 0
    values: tuple[float, ...] | None = None
    below: tuple[tuple[float, ...], ...] = ()
    final: bool = False
    elsewhere: bool = False

    @property
    def choice(self) -> Choice:
        """The candidate's point of the space; raises `ValueError` if it comes from a file and is none."""
        return self.point if isinstance(self.point, Choice) else self.point(self.candidate)

    @property
    def key(self) -> str:
        """The candidate's key."""
        return self.candidate.key

    @property
    def failed(self) -> bool:
        """Whether it failed at a rung."""
        return self.final and self.level > 0 and self.values is None

    def copied(self) -> Trial:
        """Return a copy that stays as it is, also while another thread adds outcomes."""
        return replace(self, proxy=dict(self.proxy), full=dict(self.full))

    def status(self, top: int) -> TrialStatus:
        """Tell how far it got on the way to the rung at step `top`, or why it got no further."""
        outcomes = [*self.proxy.values(), *self.full.values()]
        broken = next((outcome for outcome in outcomes if outcome.status != "ok"), None)
        if broken is not None:
            return "nonfinite" if broken.status == "nonfinite" else "failed"
        if not outcomes:
            return "running"
        # A reference is trained end to end before it is at any rung.
        return "complete" if top in self.proxy or not self.proxy else "stopped"

    @property
    def deciding(self) -> dict[int, Outcome]:
        """The end-to-end outcomes that the choice is made by, by seed."""
        return {seed: outcome for seed, outcome in self.full.items() if seed < FIRST_FRESH_SEED}

    @property
    def fresh(self) -> dict[int, Outcome]:
        """The end-to-end outcomes of seeds that no choice was made by, by seed."""
        return {seed: outcome for seed, outcome in self.full.items() if seed >= FIRST_FRESH_SEED}

    @property
    def decisive(self) -> list[Outcome]:
        """The outcomes that count: the end-to-end ones, one per deciding seed, else that of the highest rung."""
        full = [outcome for outcome in self.deciding.values() if outcome.miou is not None]
        proxy = [outcome for outcome in self.proxy.values() if outcome.miou is not None]
        return full or sorted(proxy, key=lambda outcome: outcome.step)[-1:]

    @property
    def standing(self) -> Standing | None:
        """How far it was trained; `None` until it has an mIoU."""
        if any(outcome.miou is not None for outcome in self.deciding.values()):
            return Standing(end_to_end=True, step=0)
        return Standing(end_to_end=False, step=self.decisive[0].step) if self.decisive else None

    def miou_at(self, standing: Standing) -> float | None:
        """The mean mIoU end to end, or that at a rung; `None` if it has none there."""
        outcomes = self.deciding.values() if standing.end_to_end else filter(None, [self.proxy.get(standing.step)])
        return mean([outcome.miou for outcome in outcomes if outcome.miou is not None])

    def mean_of(self, measure: Callable[[Outcome], float]) -> float | None:
        """The mean of a measure of the decisive outcomes; `None` until there is one."""
        return mean([measure(outcome) for outcome in self.decisive])

    @property
    def miou(self) -> float | None:
        """Mean mIoU of the decisive outcomes."""
        return mean([outcome.miou for outcome in self.decisive if outcome.miou is not None])

    @property
    def costs(self) -> Costs:
        """The costs of its network; empty until an outcome has them."""
        outcomes = [*self.proxy.values(), *self.full.values()]
        return next((outcome for outcome in outcomes if outcome.madds is not None), Costs())


def run_name(key: str, seed: int) -> str:
    """Name an end-to-end run of a candidate."""
    return f"{key} {seed}"


@dataclass(frozen=True)
class Share:
    """A search's share of a study that others may search, too; by default it has all.

    `claim` tells whether something is this search's, which from then on it is unless it was another's: a candidate by
    its key, an end-to-end run by its `run_name`. `number` is the search's place among those of the study.
    """

    claim: Callable[[str], bool] = lambda name: True
    number: int = 0


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, or `None` of nothing; most candidates have one value, for which `statistics` is slow."""
    return statistics.mean(values) if len(values) > 1 else next(iter(values), None)


def furthest_first(references: Iterable[Trial], score: Callable[[Outcome], float]) -> list[Trial]:
    """Order references, first the baseline: the best of those trained end to end most often, else of the top rung."""

    def standing(trial: Trial) -> tuple[int, int, float]:
        rung = 0 if trial.deciding else max(trial.proxy, default=0)
        return len(trial.deciding), rung, trial.mean_of(score) or 0.0

    return sorted(references, key=standing, reverse=True)


MOST_DESCRIBED, MOST_READ = 4096, 1024
"""Choices whose candidates, and candidates whose choices are kept in memory; a proposal may look at a few hundred."""
BEST_SHOWN, LATEST_SHOWN = 256, 256
"""Trials that samplers see at most: the best, the latest, and as many of the latest rejected ones."""


def read_from(space: Space[Any]) -> Callable[[Candidate], Choice]:
    """Return what reads a candidate's choice, in its canonical form; it raises a `DamagedError` for none of the space.

    A candidate may come from a record that is someone else's.
    """

    def read(candidate: Candidate) -> Choice:
        with damaged(f"candidate {candidate.label or candidate.key}", "restore the search's record from a copy"):
            choice: Choice = space.canonical(space.parse(candidate.choice))
            return choice

    return read


class Readings:
    """A function that reads choices, which remembers the latest."""

    def __init__(self, read: Callable[[Candidate], Choice]) -> None:
        self._read = read
        self._latest: OrderedDict[str, Choice] = OrderedDict()

    def __call__(self, candidate: Candidate) -> Choice:
        """Read the choice of a candidate."""
        choice = self._latest.pop(candidate.key, None) or self._read(candidate)
        self._latest[candidate.key] = choice
        if len(self._latest) > MOST_READ:
            self._latest.popitem(last=False)
        return choice


class Candidates:
    """All candidates of a search by key, in the order they were proposed, and those that violate a limit.

    `describe` makes the candidate of a choice, `read` reads the choice of a candidate.
    """

    def __init__(self, describe: Callable[[Choice], Candidate], read: Callable[[Candidate], Choice]) -> None:
        self.describe: Callable[[Choice], Candidate] = lru_cache(MOST_DESCRIBED)(describe)
        """The candidate of a choice."""
        self._read = Readings(read)
        self._by_key: dict[str, Trial] = {}
        self._rejected_keys: set[str] = set()
        self.trials: list[Trial] = []
        """The candidates that are trained, elsewhere too."""
        self.own = 0
        """How many of them are this search's."""
        self.rejected: list[Trial] = []
        """The candidates that are not trained because they violate a limit."""

    def __getitem__(self, key: str) -> Trial:
        return self._by_key[key]

    def constraints(self, choice: Choice) -> Mapping[str, float]:
        """Return by what share of itself the choice exceeds each limit."""
        return self.describe(choice).constraints

    def is_feasible(self, choice: Choice) -> bool:
        """Check that the choice keeps all limits."""
        return self.describe(choice).feasible

    def is_open(self, choice: Choice) -> bool:
        """Check that the choice keeps all limits and is not known yet."""
        return self.is_feasible(choice) and self.describe(choice).key not in self._by_key

    def add(self, candidate: Candidate, *, elsewhere: bool = False) -> Trial:
        """Return the trial of a candidate, a new one if its network is not known yet."""
        if candidate.key not in self._by_key:
            self._by_key[candidate.key] = Trial(candidate, self._read, len(self.trials), elsewhere=elsewhere)
            self.trials.append(self._by_key[candidate.key])
            self.own += not elsewhere
        return self._by_key[candidate.key]

    def leave(self, trial: Trial) -> None:
        """Note that a candidate is trained elsewhere."""
        self.own -= not trial.elsewhere
        trial.elsewhere = True

    def add_reference(self, label: str, choice: Choice) -> Trial:
        """Return the trial of a handcrafted point, labelled with its name."""
        return self.add(self.describe(choice).model_copy(update={"label": file_name(label)}))

    def reject(self, candidate: Candidate) -> None:
        """Note a candidate that violates a limit."""
        if candidate.key not in self._rejected_keys:
            self._rejected_keys.add(candidate.key)
            self.rejected.append(Trial(candidate, self._read, final=True))

    def recall(self, told: Trial) -> Trial | None:
        """Return the trial of a candidate on record, a new one if need be; `None` if it was rejected."""
        if told.candidate.feasible or told.candidate.label is not None:
            return self.add(told.candidate, elsewhere=told.elsewhere)
        self.reject(told.candidate)
        return None

    def shown(self, best_first: Iterable[Trial]) -> list[Trial]:
        """Return what samplers see: the rejected trials and then the others, each in their order.

        Of many, these are the first `BEST_SHOWN` in `best_first`, the latest `LATEST_SHOWN` that have a result, and all
        that were started after these, so that a proposal takes no longer in a long search.
        """
        latest, seen = len(self.trials), 0
        while latest > 0 and seen < LATEST_SHOWN:
            latest -= 1
            seen += self.trials[latest].level > 0
        best = islice(best_first, BEST_SHOWN) if latest else ()
        earlier = sorted(trial.number for trial in best if trial.number < latest)
        return [*self.rejected[-LATEST_SHOWN:], *(self.trials[number] for number in earlier), *self.trials[latest:]]


class Newcomers:
    """Candidates that wait for their first job: references and, in turns with all but the first of them, new ones.

    So something new is tried however slow the machine is. `propose` returns a new choice, or `None` if there is none.
    """

    def __init__(
        self,
        settings: PlannerSettings,
        candidates: Candidates,
        references: Sequence[Trial],
        propose: Callable[[], Choice | None],
        claim: Callable[[str], bool],
        first: int,
    ) -> None:
        self._size, self._most = settings.candidates_per_job, settings.candidates
        self._candidates, self._references, self._propose = candidates, references, propose
        self._claim, self._first = claim, first
        self.waiting: list[Trial] = []

    def group(self) -> list[Trial]:
        """Return those that are next, enough for a job if there are as many."""
        candidates, waiting = self._candidates, self.waiting
        references = {trial for trial in self._references if not trial.elsewhere}
        in_turn = len(references.difference(waiting)) - self._first
        while len(waiting) < self._size or candidates.own - len(references) < in_turn:
            if self._proposed() is None:
                break
        return waiting

    def new(self, count: int) -> list[Trial]:
        """Take so many that are no references, or as many as there are."""
        found: list[Trial] = []
        while len(found) < count:
            waiting = (trial for trial in self.waiting if trial not in self._references)
            if (trial := next(waiting, None) or self._proposed()) is None:
                break
            if self.take(trial):
                found.append(trial)
        return found

    def take(self, trial: Trial) -> bool:
        """Take one for its first job; false if it is another search's."""
        if not self._claim(trial.key):
            self.leave(trial)
            return False
        self.waiting.remove(trial)
        return True

    def leave(self, trial: Trial) -> None:
        """Note that a candidate is another search's."""
        self._candidates.leave(trial)
        if trial in self.waiting:
            self.waiting.remove(trial)

    def _proposed(self) -> Trial | None:
        choice = self._propose() if self._most is None or self._candidates.own < self._most else None
        if choice is None:
            return None
        self.waiting.insert(0, self._candidates.add(self._candidates.describe(choice)))
        return self.waiting[0]
