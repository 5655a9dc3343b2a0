"""The schedule of relaxations: which part of which is trained next, and which have ended."""

from __future__ import annotations

import math

from nasseg.planning.job import JobResult

PARTS = 10
"""Jobs per relaxation, so that the budget can end it between two of them."""


class RelaxationSchedule:
    """The relaxations of a search by gradient, one per seed, trained for `steps` each.

    One ends after its last step, when a part fails, or between parts once `share` of the budget is spent: then what it
    has found so far counts.
    """

    def __init__(self, seeds: range, steps: int, share: float) -> None:
        self._seeds, self._steps, self._share = seeds, steps, share
        self._results: dict[int, JobResult] = {}
        self._in_flight: set[int] = set()
        self._ended: set[int] = set()

    @property
    def is_over(self) -> bool:
        """Whether all have ended."""
        return len(self._ended) == len(self._seeds)

    def next_part(self, spent: float) -> tuple[int, int, int] | None:
        """Hand out the next part to train: seed, first and last step; `None` if there is none now.

        Raises `RuntimeError` if all failed.
        """
        if self._seeds and all(self._failed(seed) for seed in self._seeds):
            last = self._results[self._seeds[-1]]
            raise RuntimeError(f"all relaxations failed, the last with: {last.message}")
        for seed in self._seeds:
            if seed not in self._ended and seed not in self._in_flight and not self._has_ended(seed, spent):
                step = self._step(seed)
                self._in_flight.add(seed)
                return seed, step, min(step + math.ceil(self._steps / PARTS), self._steps)
        return None

    def take_in(self, result: JobResult) -> None:
        """Note the result of a part."""
        self._in_flight.discard(result.job.seed)
        self._results[result.job.seed] = result

    def end(self, spent: float) -> list[JobResult]:
        """Return the last results of those that have ended and were not returned before."""
        new = [seed for seed in self._seeds if seed not in self._ended and self._has_ended(seed, spent)]
        self._ended.update(new)
        return [self._results[seed] for seed in new]

    def _step(self, seed: int) -> int:
        return self._results[seed].job.stop_step if seed in self._results else 0

    def _has_ended(self, seed: int, spent: float) -> bool:
        if seed in self._in_flight or seed not in self._results:
            return False
        return self._failed(seed) or self._step(seed) == self._steps or spent >= self._share

    def _failed(self, seed: int) -> bool:
        return seed in self._results and self._results[seed].message is not None
