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


PASSES_PER_STEP = 3
"""A training step takes as long as this many inference passes."""


class Speed(BaseModel):
    """Seconds of one job's steps at `image_scale`, measured with the threads of one worker."""

    model_config = ConfigDict(frozen=True)

    image_scale: float
    full_step_seconds: float
    proxy_step_seconds: float | None
    """On stored features; `None` if there are none, and trials train whole networks."""
    forward_seconds: float
    """Reading one batch and running the whole network on it in inference."""
    relax_step_seconds: float = 0.0
    """Updating a relaxation's weights and its architecture parameters, with reading a batch for each."""

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
        """Convert to another scale, in proportion to the number of pixels."""
        factor = (image_scale / self.image_scale) ** 2
        times = {name: value * factor for name, value in self.model_dump(exclude_none=True).items()}
        return Speed.model_validate({"proxy_step_seconds": None, **times, "image_scale": image_scale})
