"""The machine that a search runs on: how many jobs at once, and how long their steps take."""

from __future__ import annotations

import os

import torch
from pydantic import BaseModel, ConfigDict


def cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Hardware(BaseModel):
    """The hardware of a search; `workers` jobs run at once, with `threads` threads each."""

    model_config = ConfigDict(frozen=True)

    device: str
    cores: int
    gpus: int
    workers: int
    threads: int
    gpus_per_trial: float = 0.0

    @classmethod
    def of(
        cls, device: torch.device, cores: int, concurrency: int | None = None, gpus_per_trial: float | None = None
    ) -> Hardware:
        """Assign one worker per core on a CPU, or four per GPU, as their kernels are small.

        Raises `ValueError` for a share of more GPUs than there are.
        """
        gpus = torch.cuda.device_count() if device.type == "cuda" else 0
        share = gpus_per_trial or (min(1.0, gpus / concurrency) if concurrency else 0.25 if gpus else 0.0)
        if share > gpus:
            raise ValueError(f"gpus_per_trial is {share:g}, but the device {device} has {gpus} GPUs; ask for less")
        most = max(1, int(gpus / share)) if share else cores
        workers = concurrency or most
        if gpus:
            workers = min(workers, most)
        return cls(
            device=str(device),
            cores=cores,
            gpus=gpus,
            workers=workers,
            threads=max(1, cores // workers),
            gpus_per_trial=share,
        )

    @property
    def workers_together(self) -> int:
        """The workers that share a GPU or, without one, the cores of this machine."""
        if self.gpus_per_trial:
            return max(1, min(self.workers, int(1 / self.gpus_per_trial)))
        return max(1, min(self.workers, self.cores // self.threads))


TYPICAL_CONTENTION = 1.15
"""How many times longer a step takes beside other jobs where it was not measured."""
PASSES_PER_STEP = 3
"""A training step takes as long as this many inference passes."""


class Speed(BaseModel):
    """Seconds of one job's steps at `image_scale`, measured with the threads of one worker, on images in memory."""

    model_config = ConfigDict(frozen=True)

    image_scale: float
    full_step_seconds: float
    proxy_step_seconds: float | None
    """On stored features; `None` if there are none, and trials train whole networks."""
    forward_seconds: float
    """Running the whole network on one batch in inference."""
    relax_step_seconds: float = 0.0
    """Updating a relaxation's weights and its architecture parameters."""
    reading_seconds: float = 0.0
    """Reading one batch of images."""
    overheads: dict[str, float] = {}
    """The part of a time, by its name, that does not grow with the images."""
    contention: float = TYPICAL_CONTENTION
    """How many times longer each takes while all jobs run."""

    @property
    def trial_step_seconds(self) -> float:
        """A training step of a trial."""
        return self.full_step_seconds if self.proxy_step_seconds is None else self.proxy_step_seconds

    def scoring_seconds(self, batches: float) -> float:
        """Estimate scoring a whole network on so many batches of images."""
        return batches * self.forward_seconds

    def trial_scoring_seconds(self, batches: float) -> float:
        """Estimate scoring a trial."""
        if self.proxy_step_seconds is None:
            return self.scoring_seconds(batches)
        return batches * self.proxy_step_seconds / PASSES_PER_STEP

    def at(self, image_scale: float) -> Speed:
        """Convert to another scale: all but the overheads in proportion to the number of pixels."""
        factor, times = (image_scale / self.image_scale) ** 2, {}
        for name, seconds in self.model_dump(
            exclude={"image_scale", "overheads", "contention"}, exclude_none=True
        ).items():
            overhead = self.overheads.get(name, 0.0)
            times[name] = overhead + factor * (seconds - overhead)
        return self.model_copy(update={**times, "image_scale": image_scale})

    def reading(self, share: float) -> Speed:
        """Add to each step on images the reading of this share of them."""
        names = ("full_step_seconds", "forward_seconds", "relax_step_seconds")
        added = share * self.reading_seconds
        return self.model_copy(update={name: getattr(self, name) + added for name in names})


def batch_size(device: torch.device) -> int:
    """Choose the images per step: enough to keep a GPU busy, and what a CPU can afford."""
    return 16 if device.type == "cuda" else 8
