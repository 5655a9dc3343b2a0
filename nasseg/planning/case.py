"""What a plan is made for: the options of a search, the machine, and the amount of data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from nasseg.planning.budget import Budget
from nasseg.planning.final.runs import FINAL_REFERENCES, rounds_of
from nasseg.planning.machine import Hardware, Room, Speed, batch_size
from nasseg.planning.options import SearchOptions

USABLE_SHARE, STARTING_SECONDS = 0.95, 20
"""A plan may spend this share of the time, less the seconds that workers take to start."""
MOST_EPOCHS, MOST_STEPS_OF_FEW_IMAGES = 100, 1000
"""No run is longer than both of these."""


@dataclass(frozen=True)
class EndToEnd:
    """The end-to-end runs; `rounds` is how many follow each other, in units of a run alone on the machine."""

    finalists: int
    seeds: int
    rounds: float


@dataclass(frozen=True)
class Case:
    """The inputs of a plan: the options, the machine, and the amount of data."""

    options: SearchOptions
    speed: Speed
    hardware: Hardware
    size: tuple[int, int]
    train_images: int
    val_images: int
    references: int

    @cached_property
    def budget(self) -> Budget:
        """The budget."""
        return Budget.parse(self.options.budget)

    @cached_property
    def seconds(self) -> float:
        """Total wall clock; infinite for a budget of trials."""
        return self.budget.wall_seconds(self.hardware.cores, self.hardware.gpus)

    @property
    def hours(self) -> float:
        """Total wall clock in hours."""
        return self.seconds / 3600

    def with_workers(self, workers: int) -> Case:
        """Return the same case with so many workers."""
        return replace(self, hardware=self.hardware.model_copy(update={"workers": workers}))

    @property
    def final_references(self) -> int:
        """How many references the final compares."""
        return min(FINAL_REFERENCES, self.references)

    @cached_property
    def final(self) -> EndToEnd:
        """The end-to-end runs."""
        if self.hours < 1 or math.isinf(self.hours):
            finalists, seeds = 2, 2
        elif self.hours < 10:
            finalists, seeds = 5, 2
        else:
            finalists, seeds = 10, 3
        finalists, seeds = self.options.finalists or finalists, self.options.seeds or seeds
        runs = (finalists + self.final_references) * seeds
        return EndToEnd(finalists, seeds, self.room.contention * rounds_of(runs, self.hardware.workers))

    @property
    def trains_whole(self) -> bool:
        """Whether trials train whole networks."""
        return self.speed.proxy_step_seconds is None

    @property
    def usable_seconds(self) -> float:
        """What a plan may spend."""
        return max(1.0, USABLE_SHARE * self.seconds - STARTING_SECONDS)

    @property
    def device(self) -> torch.device:
        """The device of all jobs."""
        return torch.device(self.hardware.device)

    @property
    def batch_size(self) -> int:
        """Images of a step."""
        return batch_size(self.device)

    @cached_property
    def room(self) -> Room:
        """What memory and disk suffice for, and how fast it is."""
        return Room(self.hardware, self.speed, self.size, self.train_images, self.val_images)

    @property
    def most_steps(self) -> int:
        """Of an end-to-end run."""
        return max(MOST_STEPS_OF_FEW_IMAGES, MOST_EPOCHS * self.train_images // self.batch_size)

    @property
    def rungs(self) -> int:
        """How many rungs there are."""
        return 2 if self.hours < 1 or math.isinf(self.hours) else 3
