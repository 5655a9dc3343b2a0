"""When a search by a plan does what: the forecast that the plan is made by."""

from __future__ import annotations

from dataclasses import dataclass

from nasseg.planning.final.clock import DEVIATION_SHARE, longest
from nasseg.planning.final.runs import LEAST_PROXY_SHARE, SPARE_SHARE, rounds_in


@dataclass(frozen=True)
class Timeline:
    """The course of a search of `total_seconds` with so many `workers`, in seconds of wall clock.

    Workers begin at `starting_seconds`. If they need features, the first reference is trained for `preparing_seconds`,
    `apart` if that run is none of the final's; meanwhile others train the `references` end to end, which takes
    `run_seconds` each. Then features are stored, for `storing_seconds`. Candidates make way for the final when what is
    left is just enough for it, but for a spare.
    """

    total_seconds: float
    workers: int
    starting_seconds: float
    run_seconds: float
    references: int
    finalists: int
    seeds: int
    needs_features: bool
    preparing_seconds: float = 0.0
    apart: bool = False
    storing_seconds: float = 0.0

    @property
    def beside(self) -> int:
        """End-to-end runs that begin with the search, but for one that gives features and is made apart."""
        if not self.needs_features:
            return 0
        return min(self.workers, self.references * self.seeds + self.apart) - self.apart

    @property
    def candidates_from(self) -> float:
        """When the first candidates are trained."""
        return self.starting_seconds + self.needs_features * (self.preparing_seconds + self.storing_seconds)

    @property
    def rounds(self) -> int:
        """How many end-to-end runs follow each other in the final."""
        runs = (self.finalists + self.references) * self.seeds - self.beside
        before = self.candidates_from - self.starting_seconds
        return rounds_in(self.total_seconds, before, self.run_seconds, runs, self.workers)

    @property
    def final_from(self) -> float:
        """When candidates make way."""
        runs_seconds = longest(self.run_seconds, DEVIATION_SHARE * self.run_seconds, self.rounds, self.workers)
        return max(LEAST_PROXY_SHARE * self.total_seconds, (1 - SPARE_SHARE) * self.total_seconds - runs_seconds)

    @property
    def candidate_seconds(self) -> float:
        """What all workers together have for candidates before."""
        runs_until = self.starting_seconds + self.run_seconds
        runs_seconds = self.beside * max(0.0, runs_until - self.candidates_from)
        return max(1.0, self.workers * (self.final_from - self.candidates_from) - runs_seconds)

    @property
    def late_seconds(self) -> float:
        """What a worker has for candidates after its last end-to-end run, on average."""
        return max(0.0, self.total_seconds - self.final_from - self.rounds * self.run_seconds)
