"""Features of the shared stage of a space, computed once, on which all candidates are trained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nasseg.data import Augment, Batch, Block, FeatureCache, Split
from nasseg.data.augment import VERSION, normalise
from nasseg.data.batches import seeded
from nasseg.data.cache import Compute
from nasseg.data.resident import ResidentFeatures
from nasseg.foreign import damaged
from nasseg.graph import Architecture
from nasseg.jobs.context import Context
from nasseg.jobs.end_to_end import EVALUATION_BATCH
from nasseg.network import Network
from nasseg.run_folder import FEATURES_FOLDER
from nasseg.train.checkpoint import load_safetensors
from nasseg.train.device import autocast, place

Part = Literal["train", "val"]


class SharedFeatures:
    """The outputs of the shared stage, as trained with the first reference, on both splits.

    Training images are stored as several augmented views, validation images unchanged. Masks are sampled at the plan's
    `label_stride`. All workers of a machine that need the features compute them together, those that come first.
    """

    def __init__(self, context: Context, stage: str) -> None:
        self._context, self._stage = context, stage
        self._caches: dict[Part, FeatureCache] = {}
        self._residents: dict[Part, ResidentFeatures | None] = {}
        self._computed = 0

    def store(self) -> bool:
        """Compute with the other workers what is missing; returns whether this one computed anything from its images.

        Raises `Stopped`, between two blocks, if the search stops.
        """
        before = self._computed
        self.cache("train")
        self.cache("val")
        return self._computed > before

    def training_batches(self, seed: int, start_step: int) -> Iterator[Batch]:
        """Yield endless shuffled batches for the part of a network after the stored nodes."""
        size, device = self._context.plan.proxy_recipe.batch_size, self._context.problem.device
        if (resident := self._resident("train")) is not None:
            return map(with_image_size, resident.batches(size, seed, start_step))
        return map(with_image_size, self.cache("train").batches(size, seed, start_step, device))

    def evaluation_batches(self) -> Iterator[Batch]:
        """Yield the validation images once, in order."""
        if (resident := self._resident("val")) is not None:
            return map(with_image_size, resident.sequential(EVALUATION_BATCH))
        return map(with_image_size, self.cache("val").sequential(EVALUATION_BATCH, self._context.problem.device))

    def _resident(self, part: Part) -> ResidentFeatures | None:
        """Keep the features of a split on a GPU from now on, if the plan leaves room for them."""
        if part not in self._residents:
            kept = [other for other, resident in self._residents.items() if resident is not None]
            taken = sum(self.cache(each).nbytes for each in (*kept, part))
            self._residents[part] = None
            if taken <= self._context.plan.resident_bytes:
                with suppress(torch.OutOfMemoryError):
                    self._residents[part] = ResidentFeatures(self.cache(part), self._context.problem.device)
        return self._residents[part]

    def cache(self, part: Part) -> FeatureCache:
        """Open the stored features of a split, computing with the other workers what is missing."""
        if part not in self._caches:
            context, (network, weights) = self._context, self.prefix
            split = context.train if part == "train" else context.val
            stored = network.architecture
            key = {
                "nodes": {name: stored.node_keys[name] for name in stored.outputs},
                "prefix": stored.key,
                "weights": weights,
                "data": split.fingerprint,
                "views": context.plan.views if part == "train" else 0,
                "augment": context.plan.proxy_recipe.augment.model_dump(mode="json"),
                "version": VERSION,
                "label_stride": context.plan.label_stride,
                "seed": context.problem.options.seed,
            }
            self._caches[part] = FeatureCache.open_or_fill(
                context.folder / FEATURES_FOLDER,
                key,
                context.plan.views if part == "train" else 1,
                len(split),
                EVALUATION_BATCH,
                self._computing(split, augmented=part == "train"),
                context.raise_if_stopped,
            )
        return self._caches[part]

    @cached_property
    def stored(self) -> Architecture:
        """The part of the first reference whose outputs are stored."""
        return self._reference.cut(self._stage)[0]

    @property
    def _reference(self) -> Architecture:
        problem = self._context.problem
        return problem.architecture(next(iter(problem.references.values())))

    @property
    def trained_reference(self) -> Path:
        """The model of the first reference, whose layers give the features."""
        return self._context.prepared_model

    @cached_property
    def prefix(self) -> tuple[Network, str]:
        """The trained reference's layers up to the end of the shared stage, and the hash of their weights."""
        file = self.trained_reference
        weights = load_safetensors(file, "search again in another folder")
        network = Network(self.stored)
        with damaged(file, "search again in another folder"):
            network.load_state_dict({name: weights[name] for name in network.state_dict()})
        digest = hashlib.sha256()
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.numpy().tobytes())
        return network.eval(), digest.hexdigest()

    def _computing(self, split: Split, *, augmented: bool) -> Compute:
        """Make what computes blocks of a split's features.

        Images of different sizes are scored on a fixed crop of each, as cached features must have one shape.
        """
        context, (network, _) = self._context, self.prefix
        device, recipe = context.problem.device, context.plan.proxy_recipe
        whole = cache(lambda: not augmented and len({split[at].mask.shape for at in range(len(split))}) == 1)

        def images_of(block: Block) -> tuple[Tensor, Tensor]:
            samples = [split[index] for index in range(block.start, block.stop)]
            images, masks = [sample.image for sample in samples], [sample.mask for sample in samples]
            if whole():
                return normalise(torch.stack(images).to(device)), torch.stack(masks).to(device).long()
            augment = recipe.augment if augmented else Augment(crop=recipe.crop)
            generator = seeded(context.problem.options.seed, block.view, block.start)
            return augment(images, masks, generator, split.ignore_index, device=device)

        def compute(block: Block) -> tuple[dict[str, Tensor], Tensor]:
            self._computed += 1
            place(network, device)
            images, masks = images_of(block)
            with torch.inference_mode(), autocast(device, recipe.amp):
                features = network.outputs({"image": images.contiguous(memory_format=torch.channels_last)})
            return features, sampled(masks, context.plan.label_stride)

        return compute


def sampled(masks: Tensor, stride: int) -> Tensor:
    """Sample masks (N, H, W) at `stride`, in the middle of each square."""
    return masks[:, stride // 2 :: stride, stride // 2 :: stride]


def with_image_size(batch: Batch) -> Batch:
    """Add an empty image of the masks' size to a batch, from which the logits take only their size."""
    size = batch.masks.shape[-2:]
    return Batch({**batch.inputs, "image": torch.zeros(1, 1, *size, device=batch.masks.device)}, batch.masks)
