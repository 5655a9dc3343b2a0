"""Runs one job of a search: trains candidates on cached features, or one of them end to end."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from nasseg import plugins
from nasseg.cost.latency_table import LatencyTable
from nasseg.data import (
    Augment,
    Batch,
    CacheWriter,
    FeatureCache,
    Split,
    evaluation_batches,
    open_dataset,
    training_batches,
)
from nasseg.data.augment import normalise
from nasseg.data.batches import seeded
from nasseg.data.resized import Resized
from nasseg.graph import Architecture
from nasseg.jobs.pricing import Pricing
from nasseg.network import Network
from nasseg.planning.config import Plan, SearchConfig
from nasseg.planning.job import Candidate, Job, JobResult, Outcome
from nasseg.planning.limits import excess
from nasseg.space import Choice
from nasseg.space.relaxation import Relaxable
from nasseg.train.checkpoint import load_checkpoint, save_checkpoint
from nasseg.train.device import autocast, place
from nasseg.train.evaluate import evaluate
from nasseg.train.fit import fit, seeded_network
from nasseg.train.inheritance import WeightStore
from nasseg.train.metrics import Metrics
from nasseg.train.model import save_model
from nasseg.train.provenance import DataInfo, Provenance, versions
from nasseg.train.relaxation.decoding import decode_within
from nasseg.train.relaxation.trainer import RelaxationTrainer, fit_relaxation, seeded_relaxation
from nasseg.train.trainer import Trainer
from nasseg.train.weights import load_pretrained

EVALUATION_BATCH = 8
LATENCY_TABLE = "latency.json"
"""In the run folder: a copy of the table that the search was given."""


class SearchWorker:
    """Holds what jobs share, the data and the trained backbone's features; a `nasseg.planning.job.Worker`."""

    def __init__(self, config: SearchConfig, folder: Path) -> None:
        if config.plan is None:
            raise ValueError("a worker needs a config with a plan")
        self.config, self.folder = config, folder
        self.plan: Plan = config.plan
        self.device = config.torch_device
        self.space = plugins.space(config.space, named_by_user=config.space)
        self.dataset = open_dataset(config.data)
        self.train = Resized(self.dataset.split(config.train_split), self.plan.image_scale)
        self.val = Resized(self.dataset.split(config.val_split), self.plan.image_scale)
        self.classes = len(self.dataset.classes)
        self.checkpoints = folder / "checkpoints"
        self.checkpoints.mkdir(exist_ok=True)
        inherit = config.inherit and self.space.shared_stage is None
        self.weights = WeightStore(folder / "weights") if inherit else None

    def run(self, job: Job) -> JobResult:
        """Train the job's candidates; a candidate whose loss is not finite is an outcome, not an error.

        Raises `RuntimeError` for a relaxation whose loss is not finite.
        """
        start = time.perf_counter()
        torch.set_num_threads(self.plan.threads)
        if job.task == "relax":
            found = tuple(choice.model_dump(mode="json") for choice in self._relax(job))
            return JobResult(job=job, outcomes=(), found=found, seconds=time.perf_counter() - start)
        outcomes = self._proxy(job) if job.task == "proxy" else (self._full(job.candidates[0], job.seed),)
        if job.task == "prepare" and outcomes[0].status == "ok" and self.space.shared_stage:
            self.features("train")
            self.features("val")
        return JobResult(job=job, outcomes=outcomes, seconds=time.perf_counter() - start)

    def architecture(self, candidate: Candidate) -> Architecture:
        """The candidate's network, with where it comes from."""
        choice: Choice = self.space.parse(candidate.choice)
        architecture = self.space.architecture(choice, self.classes)
        return architecture.replace(space=self.config.space, choice=candidate.choice)

    @cached_property
    def provenance(self) -> Provenance:
        """What the run's architectures come from, without scores."""
        config = self.config
        height, width = self.dataset.split(config.val_split)[0].mask.shape
        data = DataInfo.of(self.dataset, config.train_split, config.val_split, (height, width))
        return Provenance(
            data=data, weights=config.weights, budget=str(config.budget), seed=config.seed, versions=versions()
        )

    @cached_property
    def pricing(self) -> Pricing:
        """What networks cost, by the run folder's latency table if it has one."""
        table = self.folder / LATENCY_TABLE
        return Pricing(
            self.provenance.data.size, self.config.limits, LatencyTable.load(table) if table.exists() else None
        )

    # --- end to end ------------------------------------------------------------------------------------------------

    def model_file(self, key: str, seed: int) -> Path:
        """Where a network that was trained end to end is kept."""
        return self.checkpoints / f"{key}-full{seed}.safetensors"

    def _full(self, candidate: Candidate, seed: int) -> Outcome:
        architecture = self.architecture(candidate)
        network = seeded_network(architecture, seed)
        if self.config.weights is not None:
            load_pretrained(network, self.config.weights)
        unfinished = self.checkpoints / f"{candidate.key}-full{seed}.pt"
        trainer, log = fit(
            network, self.plan.full_recipe, self.train, device=self.device, seed=seed, checkpoint=unfinished
        )
        if log.status == "nonfinite":
            return self._outcome(candidate, architecture, "nonfinite", log.step)
        best = trainer.ema_network()
        batches = (batch for batch, _ in evaluation_batches(self.val, EVALUATION_BATCH, self.device))
        metrics = evaluate(best, batches, self.classes, self.val.ignore_index, self.device)
        provenance = self.provenance.model_copy(update={"miou": {"search": metrics.miou}})
        save_model(self.model_file(candidate.key, seed), best, provenance)
        unfinished.unlink(missing_ok=True)
        return self._outcome(candidate, architecture, "ok", log.step, metrics)

    def _outcome(
        self, candidate: Candidate, architecture: Architecture, status: Any, step: int, metrics: Metrics | None = None
    ) -> Outcome:
        return Outcome(
            key=candidate.key,
            status=status,
            step=step,
            miou=metrics.miou if metrics else None,
            class_iou=metrics.class_iou if metrics else (),
            **self.pricing.costs(architecture).model_dump(),
        )

    # --- by gradient -----------------------------------------------------------------------------------------------

    def _relax(self, job: Job) -> list[Choice]:
        """Train the space's relaxation from its checkpoint to the job's last step, and decode it.

        Before the first update of its architecture it would decode to a random choice, which is nothing found.
        """
        recipe = self.plan.relax_recipe
        assert recipe is not None
        assert isinstance(self.space, Relaxable)
        relaxation = seeded_relaxation(self.space, self.classes, recipe.options, job.seed)
        relaxation.price(self.pricing.op_cost, self.provenance.data.size, self.pricing.fixed_cost)
        trainer = RelaxationTrainer(relaxation, recipe, self.train, self.device, job.seed)
        snapshots = self.folder / "relaxation"
        snapshots.mkdir(exist_ok=True)
        checkpoint = self.checkpoints / f"relax{job.seed}.pt"
        if fit_relaxation(trainer, job.stop_step, checkpoint, snapshots / f"seed{job.seed}.json") == "nonfinite":
            raise RuntimeError(f"the relaxation's loss is not finite in step {trainer.step}")
        if trainer.step <= recipe.first_architecture_step:
            return []
        return [self.space.canonical(decode_within(relaxation, self._keeps_limits))]

    def _keeps_limits(self, choice: Choice) -> bool:
        return excess(self.pricing.constraints(self.space.architecture(choice, self.classes))) == 0

    # --- by proxy --------------------------------------------------------------------------------------------------

    def _proxy(self, job: Job) -> tuple[Outcome, ...]:
        """Train the parts after the shared stage side by side, each batch read once for all of them.

        Without a shared stage, new trainings start from the weights of earlier ones (`WeightStore`). On cached features
        they do not: a head is cheap to train, and how far that proxy can be trusted was measured without inheritance.
        """
        candidates = {candidate.key: candidate for candidate in job.candidates}
        architectures = {key: self.architecture(candidate) for key, candidate in candidates.items()}
        trainers: dict[str, Trainer] = {}
        for key, architecture in architectures.items():
            recipe = self.plan.proxy_recipe
            network = seeded_network(self._trained_part(architecture), job.seed)
            if self.weights and not job.start_step:
                self.weights.load_into(network)
            trainer = Trainer(network, recipe, recipe.steps, self.device, job.seed, self.train.ignore_index)
            if job.start_step:
                checkpoint = self._proxy_checkpoint(key, job.start_step)
                trainer.load_state_dict(load_checkpoint(checkpoint, self.device))
            trainers[key] = trainer
        failed: set[str] = set()
        batches = self._training_batches(job.seed, job.start_step)
        for _ in range(job.start_step, job.stop_step):
            batch = next(batches)
            for key, trainer in trainers.items():
                if key not in failed and trainer.run([batch], trainer.step + 1).status == "nonfinite":
                    failed.add(key)
        outcomes = []
        for key, trainer in trainers.items():
            metrics = None
            if key not in failed:
                metrics = self._score(trainer.ema_network())
                if self.weights:
                    self.weights.save(trainer.network)
                if job.stop_step < self.plan.rungs[-1]:
                    save_checkpoint(self._proxy_checkpoint(key, job.stop_step), trainer.state_dict())
            status = "nonfinite" if key in failed else "ok"
            outcomes.append(self._outcome(candidates[key], architectures[key], status, trainer.step, metrics))
        return tuple(outcomes)

    def _proxy_checkpoint(self, key: str, step: int) -> Path:
        """A name with the step, so that a job that is run again after a kill starts where it did the first time."""
        return self.checkpoints / f"{key}-proxy{step}.pt"

    def _trained_part(self, architecture: Architecture) -> Architecture:
        stage = self.space.shared_stage
        return architecture.cut(stage)[1] if stage else architecture

    def _training_batches(self, seed: int, start_step: int) -> Iterator[Batch]:
        size = self.plan.proxy_recipe.batch_size
        if self.space.shared_stage is None:
            return training_batches(self.train, self._augment, size, seed, start_step, self.device)
        return map(with_image_size, self.features("train").batches(size, seed, start_step, self.device))

    def _score(self, network: Network) -> Metrics:
        batches: Iterator[Batch]
        if self.space.shared_stage is None:
            batches = (batch for batch, _ in evaluation_batches(self.val, EVALUATION_BATCH, self.device))
        else:
            batches = map(with_image_size, self.features("val").sequential(EVALUATION_BATCH, self.device))
        return evaluate(network, batches, self.classes, self.val.ignore_index, self.device)

    # --- shared features -------------------------------------------------------------------------------------------

    @cached_property
    def _shared_part(self) -> tuple[Network, str]:
        """The trained reference's layers up to the cut, and the hash of their weights."""
        first = next(iter(self.space.references().values()))
        architecture = self.space.architecture(self.space.canonical(first), self.classes)
        prefix, _ = architecture.cut(str(self.space.shared_stage))
        weights = safetensors.torch.load_file(self.model_file(architecture.key, 0))
        network = Network(prefix)
        network.load_state_dict({name: weights[name] for name in network.state_dict()})
        digest = hashlib.sha256()
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.numpy().tobytes())
        return network.eval(), digest.hexdigest()

    def features(self, part: str) -> FeatureCache:
        """The shared part's outputs on the split `part` ("train": augmented views; "val": whole images)."""
        if part not in self._features:
            split = self.train if part == "train" else self.val
            network, weights = self._shared_part
            key = {
                "prefix": network.architecture.key,
                "weights": weights,
                "data": split.fingerprint,
                "views": self.plan.views if part == "train" else 0,
                "augment": self._augment.model_dump(mode="json"),
                "label_stride": self.plan.label_stride,
                "seed": self.config.seed,
            }
            self._features[part] = FeatureCache.open_or_build(
                self.folder / "features", key, lambda writer: self._write_features(writer, part, split)
            )
        return self._features[part]

    @cached_property
    def _features(self) -> dict[str, FeatureCache]:
        return {}

    @property
    def _augment(self) -> Augment:
        recipe = self.plan.proxy_recipe
        return Augment(crop=recipe.crop, scale=recipe.scale, flip=recipe.flip, colour=recipe.colour)

    def _write_features(self, writer: CacheWriter, part: str, split: Split) -> None:
        network, _ = self._shared_part
        place(network, self.device)
        views = self.plan.views if part == "train" else 1
        for view in range(views):
            for images, masks in self._images(split, view, augmented=part == "train"):
                with torch.inference_mode(), autocast(self.device, self.plan.proxy_recipe.amp):
                    features = network.outputs({"image": images.contiguous(memory_format=torch.channels_last)})
                writer.add(features, self._sampled(masks), view)

    def _images(self, split: Split, view: int, *, augmented: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Every sample once, in order and in batches of one size: a view, or the image as it is.

        Images of many sizes are scored on a fixed crop of each, as cached features must have one shape.
        """
        whole = not augmented and len({split[index].mask.shape for index in range(len(split))}) == 1
        for start in range(0, len(split), EVALUATION_BATCH):
            samples = [split[index] for index in range(start, min(start + EVALUATION_BATCH, len(split)))]
            images = [sample.image.to(self.device) for sample in samples]
            masks = [sample.mask.to(self.device) for sample in samples]
            if whole:
                yield normalise(torch.stack(images)), torch.stack(masks).long()
            else:
                augment = self._augment if augmented else Augment(crop=self._augment.crop)
                generator = seeded(self.config.seed, view, start)
                yield augment(images, masks, generator, split.ignore_index)

    def _sampled(self, masks: Tensor) -> Tensor:
        """Masks at `label_stride`, sampled at the cells' centres."""
        stride = self.plan.label_stride
        return masks[:, stride // 2 :: stride, stride // 2 :: stride]


def with_image_size(batch: Batch) -> Batch:
    """The batch with an empty image of the masks' size: the logits take their size from it, and nothing else."""
    size = batch.masks.shape[-2:]
    return Batch({**batch.inputs, "image": torch.zeros(1, 1, *size, device=batch.masks.device)}, batch.masks)
