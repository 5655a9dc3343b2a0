"""The relaxations of a search by gradient: how they are trained, and which part of which is next."""

from __future__ import annotations

import math
from typing import Any

import torch

from nasseg.planning.job import JobResult
from nasseg.planning.machine import batch_size
from nasseg.planning.options import SearchOptions
from nasseg.space.relaxation import RelaxationOptions
from nasseg.train.relaxation.recipe import ARCHITECTURE_START, RelaxationRecipe

UPDATES_OF_AUTO_DEEPLAB = 15_000
"""Of α and β: 20 epochs over half of Cityscapes in batches of 2 (§5.1)."""
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


def relaxation_options(options: SearchOptions, device: torch.device) -> RelaxationOptions:
    """Resolve a relaxation's memory options; GPUs recompute activations by default, as their memory is scarce."""
    again = options.checkpoint_activations
    return RelaxationOptions(
        partial_channels=options.partial_channels or 1,
        checkpoint_activations=device.type == "cuda" if again is None else again,
    )


def relax_recipe(device: torch.device, crop: tuple[int, int], **fields: Any) -> RelaxationRecipe:
    """Derive the recipe of relaxations from the networks' crop size `crop`.

    A relaxation costs tens of times as much as one network, so it gets a quarter of the images, and crops of half the
    height and width; Auto-DeepLab's are 2 images, cut to 20 % (§5.1). On CPUs its many small operators are faster in
    float32. With fewer updates of α and β than Auto-DeepLab's, their learning rate grows by the root of the ratio.
    """
    # Adam moves a parameter by at most the learning rate per step.
    updates = fields["steps"] * (1 - fields.get("architecture_start", ARCHITECTURE_START))
    rate = 3e-3 * max(1.0, UPDATES_OF_AUTO_DEEPLAB / max(1, updates)) ** 0.5
    height, width = (min(full, max(64, full // 32 * 16)) for full in crop)
    return RelaxationRecipe(
        batch_size=batch_size(device) // 4,
        crop=(height, width),
        amp=device.type != "cpu",
        architecture_learning_rate=rate,
        **fields,
    )
