"""Retraining: a network trained to the end by a recipe, in a run folder, resumable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from nasseg import plugins
from nasseg.data import Batch, Pace, drawn_splits, evaluation_batches, open_dataset
from nasseg.data.checking import Show, class_weights_for, review, silent
from nasseg.data.decoded import decoded
from nasseg.data.subset import Subset
from nasseg.graph import Architecture, load, save
from nasseg.network import Network
from nasseg.run_folder import (
    ARCHITECTURE_FILE,
    BEST_MODEL_FILE,
    CHECKPOINT_FILE,
    MODEL_FILE,
    check_new,
    load_config,
    new_folder,
    save_config,
)
from nasseg.train.detail_head import with_detail_head
from nasseg.train.device import choose_device, readers_for, threads_for
from nasseg.train.distributed.group import ALONE, Group
from nasseg.train.evaluate import evaluate
from nasseg.train.fit import Fitting, Stopped, seeded_network
from nasseg.train.metrics import Metrics
from nasseg.train.model import load_model, save_model
from nasseg.train.provenance import DataInfo, Provenance, versions
from nasseg.train.retraining.config import RetrainConfig, built_for, fitting_recipe
from nasseg.train.retraining.history import History
from nasseg.train.retraining.watcher import InAgreement, Watcher
from nasseg.train.trainer import Trainer
from nasseg.train.weights.loading import WeightsReport, absolute_source, load_pretrained

EVALUATION_BATCH = 4


class Retraining:
    """One retraining run in its folder, new (`prepare`) or resumed (`load`)."""

    def __init__(self, architecture: Architecture, config: RetrainConfig, folder: Path) -> None:
        self.architecture, self.config, self.folder = architecture, config, folder
        self.dataset = open_dataset(config.data)
        self.train = self.dataset.split(config.train_split)
        self.val = self.dataset.split(config.val_split)
        self.device = choose_device(config.device)
        self.weights_report: WeightsReport | None = None
        self.warnings: list[str] = []
        """On the data; a resumed run has none."""
        self.pace = Pace()

    @classmethod
    def prepare(
        cls,
        arch: str,
        folder: Path,
        *,
        data: str | None,
        train_split: str | None,
        val_split: str | None,
        weights: str | None,
        recipe: str,
        changes: Mapping[str, Any],
        device: str,
        seed: int,
        workers: int = 1,
        readers: int | None = None,
        cache: bool = True,
        validate_every: int | None = None,
        patience: int | None = None,
        teacher: str | None = None,
        log: str | None = None,
        space: str | None = None,
        show: Show = silent,
    ) -> Retraining:
        """Resolve the options against the architecture's file, check them, and make the run folder.

        Options that are `None` come from the file's provenance; weights `none` means random ones. In the `changes` to
        the recipe, `class_weights` may be `balanced` (`Survey.balanced_weights` of the training split). `space` is the
        file's search space as the user names it, which one that is not registered needs (`plugins.space`). `show` takes
        the progress of reading the data. Raises `ValueError` for anything that could not work later.
        """
        check_new(folder)
        architecture = plugins.architecture(arch, named_by_user=space)
        if space is not None:
            if architecture.space is None:
                raise ValueError(f"{arch} is no point of a search space; leave out --space")
            plugins.check_space(architecture.space, space, arch)
        known = Provenance.read(architecture)
        dataset = open_dataset(data or (known.data.spec if known else "streets"))
        own = known.data if known and known.data.spec == dataset.spec else None
        architecture = built_for(arch, architecture, dataset, space)
        if weights is None and known is not None:
            weights = known.weights
        train_split, val_split = drawn_splits(
            train_split or (own.train_split if own else "train"), val_split or (own.val_split if own else "val")
        )
        train = dataset.split(train_split)
        if (weights_of_classes := changes.get("class_weights")) is not None:
            changes = {**changes, "class_weights": class_weights_for(weights_of_classes, train, show)}
        on = choose_device(device)
        threads = max(1, threads_for(on) // workers)
        config = RetrainConfig(
            data=dataset.spec,
            train_split=train_split,
            val_split=val_split,
            weights=None if weights in (None, "none") else absolute_source(weights),
            recipe=fitting_recipe(recipe, architecture.name, train, changes),
            device=device,
            seed=seed,
            workers=workers,
            readers=readers_for(on, threads, workers) if readers is None else readers,
            cache=cache,
            threads=threads,
            validate_every=validate_every,
            patience=patience,
            teacher=None if teacher is None else str(Path(teacher).resolve()),
            log=log,
        )
        config.check_batch()
        retraining = cls(architecture, config, folder)
        retraining.warnings = review(dataset, config.train_split, config.val_split, show)
        retraining.network()
        retraining.teacher()
        if config.recipe.detail_head:
            with_detail_head(architecture)
        with new_folder(folder):
            save(architecture, folder / ARCHITECTURE_FILE)
            save_config(config, folder)
        return retraining

    @classmethod
    def load(cls, folder: Path) -> Retraining:
        """Open the retraining run in a folder; raises `ValueError` if it holds none, or a finished one."""
        config = load_config(RetrainConfig, folder, "retraining")
        if (folder / MODEL_FILE).exists():
            raise ValueError(f"{folder} is already finished; use its {MODEL_FILE}, or train again with another --out")
        return cls(load(folder / ARCHITECTURE_FILE), config, folder)

    def run(self, watcher: Watcher, group: Group = ALONE) -> Metrics:
        """Train to the end, score regularly on the validation split, and write the best and the last model.

        The watcher may raise `Stopped`; the state is then saved. In a group, all processes call this, and the first
        one's watcher is heard; it alone writes. Returns the scores of the last model. Raises `ValueError` if the loss
        is not finite.
        """
        config, recipe = self.config, self.config.recipe
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        watcher = watcher if group.size == 1 else InAgreement(watcher, group)
        if config.cache:
            self.train, self.val = (decoded(split, max(1, config.readers)) for split in (self.train, self.val))
        fitting = Fitting(
            self.network(),
            recipe,
            self.train,
            device=self.device,
            seed=config.seed,
            readers=config.readers,
            checkpoint=self.folder / CHECKPOINT_FILE,
            group=group,
            teacher=self.teacher(),
        )
        trainer, self.pace, metrics = fitting.trainer, fitting.pace, None
        history = History.load(self.folder).until(trainer.step)
        while True:
            if config.validates_at(trainer.step) and not history.has(trainer.step):
                try:
                    metrics = self.score(trainer, watcher, group)
                except Stopped:
                    fitting.save()
                    raise
                if group.rank == 0:
                    self._keep(history, trainer, metrics)
                history = history.adding(trainer.step, metrics.miou)
                watcher.score(trainer.step, metrics, history)
            if trainer.step == recipe.steps or history.stalled(config.patience):
                break
            log = fitting.run(config.next_validation(trainer.step), watcher.step)
            if log.status == "nonfinite":
                raise ValueError(
                    f"the loss is not finite at step {log.step}; lower --learning-rate (it is {recipe.learning_rate})"
                )
        metrics = metrics or self.score(trainer, watcher, group)
        if group.rank == 0:
            save_model(self.folder / MODEL_FILE, trainer.ema_network(), self._provenance(trainer, metrics))
            (self.folder / CHECKPOINT_FILE).unlink(missing_ok=True)
        return metrics

    def score(self, trainer: Trainer, watcher: Watcher, group: Group = ALONE) -> Metrics:
        """Score the averaged network on the validation split, each process of a group on its part of the images."""
        split = self.val if group.size == 1 else Subset(self.val, range(group.rank, len(self.val), group.size))

        def batches() -> Iterator[Batch]:
            done = 0
            for batch, names in evaluation_batches(split, EVALUATION_BATCH, self.device, self.config.readers):
                watcher.validating(done)
                yield batch
                done += len(names) * group.size

        network, classes, ignored = trainer.ema_network(), len(self.dataset.classes), self.dataset.ignore_index
        return evaluate(network, batches(), classes, ignored, self.device, group=group)

    def _keep(self, history: History, trainer: Trainer, metrics: Metrics) -> None:
        """Write down a score and, if none before was as high, its model."""
        earlier = history.best
        if earlier is None or metrics.miou > earlier.miou:
            save_model(self.folder / BEST_MODEL_FILE, trainer.ema_network(), self._provenance(trainer, metrics))
        history.adding(trainer.step, metrics.miou).save(self.folder)

    def teacher(self) -> Network | None:
        """The network to learn from, if there is one; raises `ValueError` if its classes are not the data's."""
        if self.config.teacher is None:
            return None
        network, known = load_model(Path(self.config.teacher))
        if known.data.classes != self.dataset.classes:
            raise ValueError(
                f"the teacher {self.config.teacher} knows {', '.join(known.data.classes)}, but {self.dataset.spec} has "
                f"{', '.join(self.dataset.classes)}; give a teacher trained for these classes"
            )
        return network

    def network(self) -> Network:
        """The network that the training starts from: with pretrained weights if there are any, else random."""
        network = seeded_network(self.architecture, self.config.seed)
        if self.config.weights is not None:
            self.weights_report = load_pretrained(network, self.config.weights)
        return network

    @cached_property
    def _data_info(self) -> DataInfo:
        splits = self.config.train_split, self.config.val_split
        return DataInfo.of(self.dataset, *splits, self.train.typical_size())

    def _provenance(self, trainer: Trainer, metrics: Metrics) -> Provenance:
        config = self.config
        known = Provenance.read(self.architecture)
        return Provenance(
            data=self._data_info,
            weights=config.weights,
            budget=f"{trainer.step} steps",
            seed=config.seed,
            miou={**(known.miou if known else {}), f"retrained, {config.val_split}": metrics.miou},
            latency=known.latency if known else None,
            versions=versions(),
        )
