"""From a budget and the measured speed to the dials of a search."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from nasseg.data.resized import scaled
from nasseg.planning.budget import Budget
from nasseg.planning.config import Plan, Strategy
from nasseg.planning.planner import LEAST_PROXY_SHARE, SPARE_SHARE
from nasseg.space.relaxation import RelaxationOptions
from nasseg.train.recipes import short
from nasseg.train.relaxation.recipe import ARCHITECTURE_START, RelaxationRecipe

IMAGE_SCALES = (1.0, 0.75, 0.5, 0.375, 0.25)
LABEL_STRIDE = 4
REDUCTION = 3
FEWEST_CANDIDATES = 48
FEWEST_FULL_STEPS = 120
FIRST_RUNG_STEPS = (20, 300)
"""Fewest and most steps of the first rung; more budget than the most can use goes into more candidates."""
FULL_SHARE = 0.5
"""Share of the time for training end to end: the handcrafted reference first, and the finalists."""
RELAX_SHARE = 0.5
"""Share of the rest for relaxations, in a search by gradient; with what remains, trials go on from what they find."""
RELAX_STEPS = 400
"""Where the budget is one of trials."""
UPDATES_OF_AUTO_DEEPLAB = 15_000
"""Of α and β: 20 epochs over half of Cityscapes in batches of 2 (§5.1)."""
FEWEST_RELAXATIONS, MOST_RELAXATIONS = 2, 4
CONTENTION = 1.15
"""How much longer a step takes beside others on the same machine."""


class Dials(BaseModel):
    """What of a plan a user may set; the rest is derived."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rungs: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None
    full_steps: PositiveInt | None = None
    finalists: PositiveInt | None = None
    seeds: PositiveInt | None = None
    image_scale: Annotated[float, Field(gt=0, le=1)] | None = None
    gpus_per_trial: PositiveFloat | None = None
    relax_steps: PositiveInt | None = None
    relaxations: PositiveInt | None = None
    partial_channels: PositiveInt | None = None
    checkpoint_activations: bool | None = None

    def of_gradient(self) -> dict[str, Any]:
        """Those that are for a search by gradient, and are set."""
        names = {"relax_steps", "relaxations", "partial_channels", "checkpoint_activations"}
        return self.model_dump(include=names, exclude_none=True)

    def relaxation_options(self, device: torch.device) -> RelaxationOptions:
        """Activations are computed again on GPUs unless said otherwise: there memory is dear and time is cheap."""
        again = device.type == "cuda" if self.checkpoint_activations is None else self.checkpoint_activations
        return RelaxationOptions(partial_channels=self.partial_channels or 1, checkpoint_activations=again)


class Hardware(BaseModel):
    """What a search runs on; `workers` jobs run at once, with `threads` threads each."""

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
        """One worker a core on a CPU; four share a GPU, whose kernels are small.

        Raises `ValueError` for a share that the GPUs, if there are any, cannot give.
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
            device=str(device), cores=cores, gpus=gpus, workers=workers, threads=max(1, cores // workers),
            gpus_per_trial=share,
        )  # fmt: skip


class Speed(BaseModel):
    """Seconds of one job's steps at `image_scale`, measured with the threads of one worker."""

    model_config = ConfigDict(frozen=True)

    image_scale: float
    full_step_seconds: float
    proxy_step_seconds: float
    forward_seconds: float
    """One batch read and put through the whole network in inference."""
    relax_step_seconds: float = 0.0
    """An update of a relaxation's weights and one of its architecture parameters, each with its batch read."""

    def at(self, image_scale: float) -> Speed:
        """The same at another scale, as time goes with the number of pixels."""
        factor = (image_scale / self.image_scale) ** 2
        times = {name: value * factor for name, value in self.model_dump().items() if name != "image_scale"}
        return Speed(image_scale=image_scale, **times)


def batch_size(device: torch.device) -> int:
    """Images a step: what a GPU is fed well with, and what a CPU can afford."""
    return 16 if device.type == "cuda" else 8


def relax_recipe(device: torch.device, crop: tuple[int, int], **fields: Any) -> RelaxationRecipe:
    """How relaxations are trained beside networks on crops of size `crop`.

    A relaxation costs tens of times what one network does, so it gets a quarter of the images, and crops of half the
    height and width; Auto-DeepLab's are 2 images, cut to 20 % (§5.1). On processors its many small operators are faster
    in float32. A search with fewer updates of α and β takes larger ones, by the root of the ratio.
    """
    # Adam moves a parameter by no more than the learning rate a step.
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


def search_crop(size: tuple[int, int], image_scale: float) -> tuple[int, int]:
    """The crop that trainings of a search see: the scaled image, in multiples of 16 as far as that goes."""
    height, width = scaled(size, image_scale)
    return max(32, height // 16 * 16), max(32, width // 16 * 16)


def derive_plan(
    budget: Budget,
    speed: Speed,
    hardware: Hardware,
    *,
    size: tuple[int, int],
    train_images: int,
    val_images: int,
    references: int,
    strategy: Strategy = "trials",
    cost_weight: float = 0.0,
    **given: Any,
) -> Plan:
    """The plan that spends `budget` well; the `given` `Dials` are taken as they are.

    Half of the time goes into trainings end to end (`FULL_SHARE`), at the largest image scale that leaves them
    `FEWEST_FULL_STEPS`. The rest goes into proxy trainings, first of `FEWEST_CANDIDATES` candidates, then of longer
    rungs, then of more candidates. A budget of trials has no clock in it, so its plan does not depend on the speed.

    By gradient, a share of the rest (`RELAX_SHARE`) goes into relaxations, as many as can be trained at once (in hours,
    at least two), and what remains into proxy trainings of what they find and of what is near it.
    """
    dials = Dials.model_validate(given)
    device = torch.device(hardware.device)
    batch = batch_size(device)
    seconds = budget.wall_seconds(hardware.cores, hardware.gpus)
    hours = seconds / 3600
    finalists, seeds = (2, 2) if hours < 1 or math.isinf(hours) else (5, 2) if hours < 10 else (10, 3)
    relaxations, relax_steps, relax_share = 0, 0, 1.0
    if strategy == "gradient":
        allowed = MOST_RELAXATIONS if budget.trials is None else max(1, budget.trials - references)
        # One after the other, two would get half of a short time each.
        fewest = FEWEST_RELAXATIONS if hours >= 1 else 1
        usual = min(max(fewest, hardware.workers), MOST_RELAXATIONS, allowed)
        relaxations, relax_steps = dials.relaxations or usual, dials.relax_steps or RELAX_STEPS
    finalists, seeds = dials.finalists or finalists, dials.seeds or seeds
    most_steps = max(1000, 100 * train_images // batch)
    views = 4

    if math.isinf(seconds):
        scale = dials.image_scale or (1.0 if min(size) <= 200 else 0.5)
        full_steps, first, rungs, proxy_share = dials.full_steps or 200, 60, 2, 1.0
    else:
        usable = max(1.0, 0.95 * seconds - 20)
        rounds = CONTENTION * math.ceil((finalists + references) * seeds / hardware.workers)

        def steps_at(image_scale: float) -> float:
            at = speed.at(image_scale)
            return (FULL_SHARE * usable / rounds - val_images / batch * at.forward_seconds) / at.full_step_seconds

        scales = [dials.image_scale] if dials.image_scale else IMAGE_SCALES
        scale = next((s for s in scales if steps_at(s) >= FEWEST_FULL_STEPS), scales[-1])
        at = speed.at(scale)
        planned = dials.full_steps or max(10, min(most_steps, steps_at(scale)))
        full_steps = int(planned)
        full_seconds = planned * at.full_step_seconds + val_images / batch * at.forward_seconds
        features = (views * train_images + val_images) / batch * at.forward_seconds
        proxy = max(1.0, usable - rounds * full_seconds - features)
        # While the reference is trained, other workers train the references' other seeds.
        rerank = (rounds - CONTENTION) * full_seconds
        rungs = 2 if hours < 1 else 3
        trainings = sum(1 / REDUCTION**rung for rung in range(rungs))
        steps_per_first = 1 + sum((REDUCTION**r - REDUCTION ** (r - 1)) / REDUCTION**r for r in range(1, rungs))
        candidates = FEWEST_CANDIDATES / hardware.workers
        if relaxations:
            # Without an update of the architecture a step takes half as long.
            mean_step_seconds = at.relax_step_seconds * (1 - ARCHITECTURE_START / 2)
            step_seconds = CONTENTION * math.ceil(relaxations / hardware.workers) * mean_step_seconds
            relax_steps = dials.relax_steps or int(max(10, min(most_steps, RELAX_SHARE * proxy / step_seconds)))
            proxy = max(1.0, proxy - relax_steps * step_seconds)
            relax_share = max(0.8 * LEAST_PROXY_SHARE, round(1 - SPARE_SHARE - (rerank + proxy) / seconds, 3))
        scoring = trainings * val_images / batch * at.proxy_step_seconds / 3
        per_candidate = proxy / CONTENTION / candidates - 0.7
        first = int((per_candidate - scoring) / (steps_per_first * at.proxy_step_seconds))
        first = min(max(first, FIRST_RUNG_STEPS[0]), FIRST_RUNG_STEPS[1])
        proxy_share = round(1 - SPARE_SHARE - rerank / seconds, 3)

    rung_steps = dials.rungs or tuple(first * REDUCTION**rung for rung in range(rungs))
    crop = search_crop(size, scale)
    full_recipe = short(steps=full_steps, crop=crop, batch_size=batch)
    relaxing = relax_recipe(
        device, crop, steps=relax_steps, cost_weight=cost_weight, options=dials.relaxation_options(device),
        **full_recipe.model_dump(include={"scale", "flip", "colour"}),
    ) if relaxations else None  # fmt: skip
    return Plan(
        image_scale=scale,
        rungs=rung_steps,
        full_steps=full_steps,
        candidates=budget.trials,
        finalists=finalists,
        seeds=seeds,
        proxy_share=max(LEAST_PROXY_SHARE, proxy_share),
        views=views,
        label_stride=LABEL_STRIDE,
        reduction=REDUCTION,
        concurrency=hardware.workers,
        threads=hardware.threads,
        gpus_per_trial=hardware.gpus_per_trial,
        proxy_recipe=short(steps=rung_steps[-1], crop=crop, batch_size=batch),
        full_recipe=full_recipe,
        relaxations=relaxations,
        relax_steps=relax_steps,
        relax_share=relax_share,
        relax_recipe=relaxing,
    )
