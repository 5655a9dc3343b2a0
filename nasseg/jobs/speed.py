"""The time and the memory that a step of each kind of training takes on this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from statistics import mean
from typing import Any

import torch

from nasseg.cost.memory import Allocated
from nasseg.data import Augment, Batch, Split, training_batches
from nasseg.data.cache import STORED_BYTES
from nasseg.data.resized import Resized, scaled
from nasseg.graph import Architecture
from nasseg.planning.machine import Speed, batch_size
from nasseg.planning.plan import LABEL_STRIDE, search_crop
from nasseg.planning.relaxations import relax_recipe
from nasseg.space import Space
from nasseg.space.relaxation import Relaxable, RelaxationOptions
from nasseg.train.device import steps_ahead
from nasseg.train.fit import seeded_network
from nasseg.train.recipes import short
from nasseg.train.relaxation.trainer import RelaxationTrainer, seeded_relaxation
from nasseg.train.trainer import Trainer

STEPS = 3
"""Training steps that are timed, after a first one."""
FEWEST_TOLD = 2
"""Networks that are timed before anything is told of them: the first, a reference, is slower than most."""


def measure_speed(
    space: Space[Any],
    architectures: Sequence[Architecture],
    split: Split,
    size: tuple[int, int],
    image_scale: float,
    device: torch.device,
    threads: int,
    relaxation: RelaxationOptions | None = None,
    check: Callable[[Speed, bool], object] = lambda speed, is_all: None,
) -> Speed:
    """Time training steps of networks of the space at `image_scale`; their mean counts.

    They are on crops of `split`'s images, as large as an image of `size` (height, width).

    Of their memory, the largest counts.

    Steps at half the scale tell what does not grow with the images. They take less time, so come first, and `check` is
    called with what they tell after `FEWEST_TOLD` networks and after each more, and whether that was the last; it may
    raise. With options of a `relaxation`, time its steps too.
    """
    torch.set_num_threads(threads)

    def timed(scale: float) -> tuple[int, Iterator[dict[str, float]]]:
        height, width = crop = search_crop(size, scale)
        return height * width, _times(space, architectures, Resized(split, scale), crop, device, relaxation)

    def speed_at(scale: float, times: dict[str, float], overheads: dict[str, float]) -> Speed:
        return Speed.model_validate({"proxy_step_seconds": None, **times, "image_scale": scale, "overheads": overheads})

    few, so_far = timed(image_scale / 2)
    for fewer in so_far:
        check(speed_at(image_scale / 2, fewer, {}), False)
    check(speed_at(image_scale / 2, fewer, {}), True)
    pixels, so_far = timed(image_scale)
    *_, times = so_far
    overheads = {}
    for name, seconds in times.items() if few < pixels else ():
        growing = max(0.0, seconds - fewer[name]) / (pixels - few) * pixels
        overheads[name] = max(0.0, seconds - growing)
    overheads["reading_seconds"] = times["reading_seconds"]
    return speed_at(image_scale, times, overheads)


def _times(
    space: Space[Any],
    architectures: Sequence[Architecture],
    split: Split,
    crop: tuple[int, int],
    device: torch.device,
    relaxation: RelaxationOptions | None,
) -> Iterator[dict[str, float]]:
    """Time the steps of a `Speed`, by its fields, on crops of a split of scaled images.

    Yields what is known after `FEWEST_TOLD` networks and after each more, and all in the end.
    """
    batches = training_batches(split, Augment(crop=crop, colour=0.3), batch_size(device), 0, device=device)
    images = next(batches).inputs
    start = time.perf_counter()
    next(batches)
    times = {"reading_seconds": time.perf_counter() - start}
    steps: list[tuple[float, float, float]] = []
    for architecture in architectures:
        steps.append(_time_steps(architecture, images, crop, device))
        training, forward, job_bytes = zip(*steps, strict=True)
        times |= {"full_step_seconds": mean(training), "forward_seconds": mean(forward), "job_bytes": max(job_bytes)}
        if FEWEST_TOLD <= len(steps) < len(architectures):
            yield times
    if space.shared_stage is not None:
        prefix, suffix = architectures[0].cut(space.shared_stage)
        with torch.inference_mode():
            features = seeded_network(prefix, 0).eval().outputs({"image": images["image"].cpu()})
        labels = scaled(crop, 1 / LABEL_STRIDE)
        inputs = {name: feature.clone() for name, feature in features.items()} | {"image": torch.zeros(1, 1, *labels)}
        times["proxy_step_seconds"], *_ = _time_steps(suffix, inputs, labels, device)
        times["feature_bytes"] = sum(feature[0].numel() for feature in features.values()) * STORED_BYTES
    if relaxation is not None:
        times["relax_step_seconds"], relax_bytes = _time_relaxation(space, split, crop, device, relaxation)
        times["job_bytes"] = max(times["job_bytes"], relax_bytes)
    yield times


def _time_relaxation(
    space: Space[Any], split: Split, crop: tuple[int, int], device: torch.device, options: RelaxationOptions
) -> tuple[float, float]:
    """Time a step of a relaxation with both updates, in seconds, and count its bytes."""
    assert isinstance(space, Relaxable)
    recipe = relax_recipe(device, crop, steps=2, architecture_start=0, options=options)
    relaxation = seeded_relaxation(space, len(split.classes), options, 0)
    trainer = RelaxationTrainer(relaxation, recipe, split, device, 0)
    with Allocated() as memory:
        trainer.run(1)
    start = time.perf_counter()
    trainer.run(2)
    return time.perf_counter() - start, _bytes(relaxation) + float(memory.peak)


def rehearsal(
    architecture: Architecture, inputs: dict[str, torch.Tensor], labels: tuple[int, int], device: torch.device
) -> tuple[Trainer, Iterator[Batch]]:
    """Make a trainer of a network from scratch, and the same batch again and again, with made-up masks."""
    recipe = short(steps=1, batch_size=batch_size(device))
    trainer = Trainer(seeded_network(architecture, 0), recipe, sys.maxsize, device, 0, 255)
    masks = torch.randint(0, architecture.classes, (recipe.batch_size, *labels))
    return trainer, repeat(Batch(inputs, masks))


def step_seconds(trainer: Trainer, batches: Iterator[Batch]) -> float:
    """Time the next `STEPS` training steps; return the seconds of one.

    On a device that runs ahead they are replayed, and what is replayed is recorded at an untimed step before.
    """
    if steps_ahead(trainer.device) > 1:
        trainer.run(batches, trainer.step + 1)
    start = time.perf_counter()
    trainer.run(batches, trainer.step + STEPS)
    return (time.perf_counter() - start) / STEPS


def _time_steps(
    architecture: Architecture, inputs: dict[str, torch.Tensor], labels: tuple[int, int], device: torch.device
) -> tuple[float, float, float]:
    """Time a training step and a forward pass in inference, in seconds, and count a step's bytes."""
    trainer, batches = rehearsal(architecture, inputs, labels, device)
    with Allocated() as memory:
        trainer.run(batches, 1)
    weights = _bytes(trainer.network) + _bytes(trainer.ema_network())
    train_seconds = step_seconds(trainer, batches)
    network, on_device = trainer.ema_network(), {name: value.to(device) for name, value in inputs.items()}
    with torch.inference_mode():
        start = time.perf_counter()
        network.outputs(on_device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return train_seconds, time.perf_counter() - start, float(weights + memory.peak)


def _bytes(network: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in chain(network.parameters(), network.buffers()))
