"""The machine that a search runs on: how many jobs at once, and how long their steps take."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from pydantic import BaseModel, ConfigDict

from nasseg.data.in_memory import BYTES_PER_PIXEL, LIMIT_BYTES
from nasseg.data.resized import scaled
from nasseg.planning.job import Job


def cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


PROCESS_BYTES = 500 << 20
"""What a worker takes beside its jobs: libraries and, on a GPU, its context."""
MEMORY_MARGIN = 1.3
"""Times a measured training step that a job may take: other networks of the space, work space, fragmentation."""
USABLE_DISK_SHARE = 0.9
CONTROL_GROUP = Path("/sys/fs/cgroup")


def free_memory_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU, or of this machine within the limit of its control group, if it has one."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    limit = CONTROL_GROUP / "memory.max"
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        stat = dict(line.split() for line in (CONTROL_GROUP / "memory.stat").read_text().splitlines())
        used = int((CONTROL_GROUP / "memory.current").read_text()) - int(stat["inactive_file"])
        free = min(free, int(most) - used)
    return free


class Machine(NamedTuple):
    """The cores and GPUs of a machine of a cluster."""

    cores: int
    gpus: int = 0


class Hardware(BaseModel):
    """The hardware of a search; `workers` jobs run at once, with `threads` threads each.

    `cores` and `gpus` are those of all machines of the `cluster`, or of this one if there is none. The workers that
    share a GPU, or else a machine, have `memory_bytes` together. Features may take `disk_bytes`.
    """

    model_config = ConfigDict(frozen=True)

    device: str
    cores: int
    gpus: int
    workers: int
    threads: int
    gpus_per_trial: float = 0.0
    cluster: tuple[Machine, ...] = ()
    memory_bytes: float = math.inf
    disk_bytes: float = math.inf

    @classmethod
    def of(
        cls,
        device: torch.device,
        cores: int,
        concurrency: int | None = None,
        gpus_per_trial: float | None = None,
        cluster: Sequence[Machine] = (),
    ) -> Hardware:
        """Assign one worker per core on a CPU, or four per GPU, as their kernels are small.

        `cores` are this machine's. Of the machines of a `cluster`, those count that have such a device. Raises
        `ValueError` for a share of more GPUs than a machine has.
        """
        on_gpus = device.type == "cuda"
        if cluster and device.index is not None:
            raise ValueError(f"the device is {device}, but Ray gives out the GPUs of a cluster; give --device cuda")
        here = Machine(cores, torch.cuda.device_count() if device.index is None else 1)
        machines = [machine for machine in cluster or (here,) if machine.gpus or not on_gpus]
        if not machines:
            raise ValueError(f"the device is {device}, but no machine has a GPU for Ray; give --device cpu")
        gpus, most_gpus = (total(m.gpus for m in machines) if on_gpus else 0 for total in (sum, max))
        share = gpus_per_trial or (min(1.0, gpus / concurrency) if concurrency else 0.25 if gpus else 0.0)
        if share > most_gpus:
            raise ValueError(f"gpus_per_trial is {share:g}, but the device {device} has {most_gpus} GPUs; ask for less")

        def room(threads: int) -> int:
            """Count the jobs of so many threads that the machines have room for."""
            return sum(min(m.cores // threads, int(m.gpus / share) if share else m.cores) for m in machines)

        most = sum(int(m.gpus / share) for m in machines) if share else room(1)
        workers = min(concurrency or most, most) if share or cluster else concurrency or most
        most_threads = max(m.cores for m in machines)
        return cls(
            device=str(device),
            cores=sum(m.cores for m in machines),
            gpus=gpus,
            workers=max(1, workers),
            threads=next((threads for threads in range(most_threads, 1, -1) if room(threads) >= workers), 1),
            gpus_per_trial=share,
            cluster=tuple(machines) if cluster else (),
        )

    @property
    def workers_together(self) -> int:
        """The workers that share a GPU or, without one, the cores and the memory of a machine.

        Without a cluster, all of them run on this machine, however few cores it has.
        """
        if self.gpus_per_trial:
            return max(1, min(self.workers, int(1 / self.gpus_per_trial)))
        if not self.cluster:
            return self.workers
        return max(1, min(self.workers, max(machine.cores for machine in self.cluster) // self.threads))

    @property
    def workers_of_a_machine(self) -> int:
        """The workers that a machine has at least, which store features together."""
        if not self.cluster:
            return self.workers
        share = self.gpus_per_trial
        fewest = min(int(m.gpus / share) if share else m.cores // self.threads for m in self.cluster)
        return max(1, min(self.workers, fewest))

    def with_jobs_together(self, jobs: int) -> Hardware:
        """Return the same hardware with so many workers that share a GPU, or else the cores of a machine."""
        workers = jobs * (self.gpus or len(self.cluster) or 1)
        share = 1 / jobs if self.gpus else 0.0
        threads = max(1, self.cores // workers)
        return self.model_copy(update={"workers": workers, "threads": threads, "gpus_per_trial": share})


TYPICAL_CONTENTION = 1.15
"""How many times longer a step takes beside other jobs where it was not measured."""
PASSES_PER_STEP = 3
"""A training step takes as long as this many inference passes."""
PROXY_OVERHEAD_SECONDS = 0.7
"""Of a proxy run, beyond its steps and its scoring."""


class Speed(BaseModel):
    """What a job's steps take at `image_scale`: bytes, and seconds with a worker's threads and images in memory."""

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
    job_bytes: float = 0.0
    """Memory of a training step, with the network's weights."""
    feature_bytes: float = 0.0
    """Stored features of an image."""
    overheads: dict[str, float] = {}
    """The part of a figure, by its name, that does not grow with the images."""
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

    def faster(self, factor: float) -> Speed:
        """Return the speed where each takes a `factor`-th of the seconds."""
        seconds = {name: value / factor for name, value in self if name.endswith("_seconds") and value is not None}
        return self.model_copy(update=seconds)

    def reading(self, share: float) -> Speed:
        """Add to each step on images the reading of this share of them."""
        names = ("full_step_seconds", "forward_seconds", "relax_step_seconds")
        added = share * self.reading_seconds
        return self.model_copy(update={name: getattr(self, name) + added for name in names})


class JobTimes(BaseModel):
    """What jobs take, in seconds, by the speed that was measured before the search; any job has a proxy's overhead."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial_step_seconds: float
    trial_scoring_seconds: float
    full_step_seconds: float
    scoring_seconds: float
    relax_step_seconds: float = 0.0
    storing_seconds: float = 0.0
    """Storing the features that all trials share, by one worker; those of a machine do it together."""

    @classmethod
    def of(cls, speed: Speed, val_batches: float, stored_batches: float = 0.0) -> JobTimes:
        """Derive them for a job alone on the machine; features are stored of so many batches of views."""
        return cls(
            trial_step_seconds=speed.trial_step_seconds,
            trial_scoring_seconds=speed.trial_scoring_seconds(val_batches),
            full_step_seconds=speed.full_step_seconds,
            scoring_seconds=speed.scoring_seconds(val_batches),
            relax_step_seconds=speed.relax_step_seconds,
            storing_seconds=stored_batches * speed.forward_seconds,
        )

    def longer(self, factor: float) -> JobTimes:
        """Return those of jobs that take so many times as long."""
        return JobTimes(**{name: factor * seconds for name, seconds in self})

    def seconds(self, job: Job) -> float:
        """Return what a job takes from its first step to its last, without storing features."""
        steps = job.stop_step - job.start_step
        if job.task == "relax":
            return steps * self.relax_step_seconds + PROXY_OVERHEAD_SECONDS
        if job.task == "proxy":
            each = steps * self.trial_step_seconds + self.trial_scoring_seconds
            return len(job.candidates) * each + PROXY_OVERHEAD_SECONDS
        return self.run_seconds(steps)

    def trial_seconds(self, steps: float, scorings: float = 1) -> float:
        """Return what a trial takes, in as many proxy runs as it is scored."""
        return steps * self.trial_step_seconds + scorings * (self.trial_scoring_seconds + PROXY_OVERHEAD_SECONDS)

    def run_seconds(self, steps: int) -> float:
        """Return what a run end to end takes."""
        return steps * self.full_step_seconds + self.scoring_seconds + PROXY_OVERHEAD_SECONDS


def batch_size(device: torch.device) -> int:
    """Choose the images per step: enough to keep a GPU busy, and what a CPU can afford."""
    return 16 if device.type == "cuda" else 8


@dataclass(frozen=True)
class Room:
    """What memory and disk suffice for, and how fast it is, where jobs train on so many images of `size` at a scale."""

    hardware: Hardware
    speed: Speed
    size: tuple[int, int]
    train_images: int
    val_images: int

    @property
    def contention(self) -> float:
        """How many times longer a step takes as jobs run: one job alone is what was timed."""
        return self.speed.contention if self.hardware.workers > 1 else 1.0

    def speed_at(self, image_scale: float) -> Speed:
        """The speed at a scale; images that memory does not keep are read for every step."""
        height, width = scaled(self.size, image_scale)
        kept = min(1.0, LIMIT_BYTES / (BYTES_PER_PIXEL * height * width * self.train_images))
        return self.speed.at(image_scale).reading(1 - kept)

    def times(self, image_scale: float, views: int) -> JobTimes:
        """What jobs alone on the machine take at a scale, where features of so many views of each image are stored."""
        batch = batch_size(torch.device(self.hardware.device))
        stored_batches = (views * self.train_images + self.val_images) / batch
        return JobTimes.of(self.speed_at(image_scale), self.val_images / batch, stored_batches)

    def views(self, image_scale: float, most: int) -> int:
        """Return how many augmented copies of each image the disk has room for the features of, at most `most`."""
        each = self.speed.at(image_scale).feature_bytes
        if not each or math.isinf(self.hardware.disk_bytes):
            return most
        images = USABLE_DISK_SHARE * self.hardware.disk_bytes / each - self.val_images
        return min(most, max(0, int(images / self.train_images)))

    def job_bytes(self, image_scale: float) -> float:
        """Return the memory that a job takes, with the images that its worker keeps."""
        height, width = scaled(self.size, image_scale)
        kept = (min(LIMIT_BYTES, BYTES_PER_PIXEL * height * width * n) for n in (self.train_images, self.val_images))
        images = 0 if self.hardware.gpus_per_trial else sum(kept)
        return PROCESS_BYTES + images + MEMORY_MARGIN * self.speed.at(image_scale).job_bytes

    def jobs(self, image_scale: float) -> float:
        """Return how many jobs there is memory for, of the workers that share it."""
        free = self.hardware.memory_bytes
        return free if math.isinf(free) else free // self.job_bytes(image_scale)

    def spare_bytes(self, image_scale: float) -> int:
        """Return what each worker's job leaves of the memory of a GPU, for features that stay there; 0 without one."""
        if not self.hardware.gpus_per_trial or math.isinf(self.hardware.memory_bytes):
            return 0
        share = self.hardware.memory_bytes / self.hardware.workers_together
        return max(0, int(share - self.job_bytes(image_scale)))

    def require(self, image_scale: float, jobs: int = 1) -> None:
        """Raise `ValueError` if memory or disk do not suffice for so many jobs at once at a scale."""
        if (lack := self.lack(image_scale, jobs)) is not None:
            raise ValueError(lack)

    def lack(self, image_scale: float, jobs: int = 1) -> str | None:
        """Tell what does not suffice for so many jobs at once, and what to do; `None` if all does."""
        images = f"images at {image_scale:g} of their size"
        if self.jobs(image_scale) < jobs:
            return (
                f"{jobs} job{'s at once' * (jobs > 1)} on {images} take{'s' * (jobs == 1)} "
                f"{_gibibytes(jobs * self.job_bytes(image_scale))} of memory, but "
                f"{_gibibytes(self.hardware.memory_bytes)} are free; give a smaller --image-scale"
                f"{' or a lower --concurrency' * (jobs > 1)}"
            )
        if self.views(image_scale, 1) < 1:
            features = (self.train_images + self.val_images) * self.speed.at(image_scale).feature_bytes
            return (
                f"features of {images} take {_gibibytes(features)}, but {_gibibytes(self.hardware.disk_bytes)} of the "
                "disk are free; give a smaller --image-scale or another --out"
            )
        return None


def _gibibytes(count: float) -> str:
    return f"{count / (1 << 30):.3g} GiB"
