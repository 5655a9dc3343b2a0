"""Features of the shared stage of a space, computed once, on which all candidates are trained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nasseg.data import Augment, Batch, CacheWriter, FeatureCache, Split
from nasseg.data.augment import VERSION, normalise
from nasseg.data.batches import seeded
from nasseg.data.cache import STORED_BYTES
from nasseg.foreign import damaged
from nasseg.jobs.context import Context
from nasseg.jobs.end_to_end import EVALUATION_BATCH
from nasseg.network import Network
from nasseg.run_folder import FEATURES_FOLDER, require_disk, trained_model
from nasseg.train.checkpoint import load_safetensors
from nasseg.train.device import autocast, place

Part = Literal["train", "val"]


class SharedFeatures:
    """The outputs of the shared stage, as trained with the first reference, on both splits.

    Training images are stored as several augmented views, validation images unchanged. Masks are sampled at the plan's
    `label_stride`.
    """

    def __init__(self, context: Context, stage: str) -> None:
        self._context, self._stage = context, stage
        self._caches: dict[Part, FeatureCache] = {}

    def store(self) -> None:
        """Compute all features, unless they are there already."""
        self.cache("train")
        self.cache("val")

    def training_batches(self, seed: int, start_step: int) -> Iterator[Batch]:
        """Yield endless shuffled batches for the part of a network after the shared stage."""
        size, device = self._context.plan.proxy_recipe.batch_size, self._context.problem.device
        return map(with_image_size, self.cache("train").batches(size, seed, start_step, device))

    def evaluation_batches(self) -> Iterator[Batch]:
        """Yield the validation images once, in order."""
        return map(with_image_size, self.cache("val").sequential(EVALUATION_BATCH, self._context.problem.device))

    def cache(self, part: Part) -> FeatureCache:
        """Open the stored features of a split, computing them if needed."""
        if part not in self._caches:
            context, (network, weights) = self._context, self.prefix
            split = context.train if part == "train" else context.val
            key = {
                "prefix": network.architecture.key,
                "weights": weights,
                "data": split.fingerprint,
                "views": context.plan.views if part == "train" else 0,
                "augment": context.plan.proxy_recipe.augment.model_dump(mode="json"),
                "version": VERSION,
                "label_stride": context.plan.label_stride,
                "seed": context.problem.options.seed,
            }
            self._caches[part] = FeatureCache.open_or_build(
                context.folder / FEATURES_FOLDER, key, lambda writer: self._write(writer, part, split)
            )
        return self._caches[part]

    @property
    def trained_reference(self) -> Path:
        """The model of the first reference, whose layers give the features."""
        problem = self._context.problem
        architecture = problem.architecture(next(iter(problem.references.values())))
        return trained_model(self._context.folder, architecture.key, 0)

    @cached_property
    def prefix(self) -> tuple[Network, str]:
        """The trained reference's layers up to the end of the shared stage, and the hash of their weights."""
        problem = self._context.problem
        architecture = problem.architecture(next(iter(problem.references.values())))
        file = self.trained_reference
        weights = load_safetensors(file, "search again in another folder")
        network = Network(architecture.cut(self._stage)[0])
        with damaged(file, "search again in another folder"):
            network.load_state_dict({name: weights[name] for name in network.state_dict()})
        digest = hashlib.sha256()
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.numpy().tobytes())
        return network.eval(), digest.hexdigest()

    def _write(self, writer: CacheWriter, part: Part, split: Split) -> None:
        network, _ = self.prefix
        context = self._context
        place(network, context.problem.device)
        views = context.plan.views if part == "train" else 1
        for view in range(views):
            for images, masks in context.until_stopped(self._images(split, view, augmented=part == "train")):
                with torch.inference_mode(), autocast(context.problem.device, context.plan.proxy_recipe.amp):
                    features = network.outputs({"image": images.contiguous(memory_format=torch.channels_last)})
                if writer.is_empty:
                    sample_bytes = STORED_BYTES * sum(feature[0].numel() for feature in features.values())
                    require_disk(context.folder, views * len(split) * sample_bytes)
                writer.add(features, sampled(masks, context.plan.label_stride), view)

    def _images(self, split: Split, view: int, *, augmented: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every sample once, in order and in batches: a view, or the unchanged image.

        Images of different sizes are scored on a fixed crop of each, as cached features must have one shape.
        """
        device, recipe = self._context.problem.device, self._context.plan.proxy_recipe
        whole = not augmented and len({split[index].mask.shape for index in range(len(split))}) == 1
        for start in range(0, len(split), EVALUATION_BATCH):
            samples = [split[index] for index in range(start, min(start + EVALUATION_BATCH, len(split)))]
            images, masks = [sample.image for sample in samples], [sample.mask for sample in samples]
            if whole:
                yield normalise(torch.stack(images).to(device)), torch.stack(masks).to(device).long()
            else:
                augment = recipe.augment if augmented else Augment(crop=recipe.crop)
                generator = seeded(self._context.problem.options.seed, view, start)
                yield augment(images, masks, generator, split.ignore_index, device=device)


def sampled(masks: Tensor, stride: int) -> Tensor:
    """Sample masks (N, H, W) at `stride`, in the middle of each square."""
    return masks[:, stride // 2 :: stride, stride // 2 :: stride]


def with_image_size(batch: Batch) -> Batch:
    """Add an empty image of the masks' size to a batch, from which the logits take only their size."""
    size = batch.masks.shape[-2:]
    return Batch({**batch.inputs, "image": torch.zeros(1, 1, *size, device=batch.masks.device)}, batch.masks)
