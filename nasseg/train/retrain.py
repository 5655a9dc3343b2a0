"""Retraining: a network trained to the end by a recipe, in a run folder, resumable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from nasseg import plugins
from nasseg.data import Dataset, Split, drawn_splits, evaluation_batches, open_dataset
from nasseg.data.checking import Show, review, silent
from nasseg.errors import one_line
from nasseg.graph import Architecture, load, save
from nasseg.network import Network
from nasseg.run_folder import (
    ARCHITECTURE_FILE,
    CHECKPOINT_FILE,
    MODEL_FILE,
    check_new,
    load_config,
    new_folder,
    save_config,
)
from nasseg.train.detail_head import with_detail_head
from nasseg.train.device import choose_device, threads_for
from nasseg.train.evaluate import evaluate
from nasseg.train.fit import fit, seeded_network
from nasseg.train.metrics import Metrics
from nasseg.train.model import save_model
from nasseg.train.provenance import DataInfo, Provenance, versions
from nasseg.train.recipe import Recipe
from nasseg.train.recipes import OWN_RECIPES, paper_recipe
from nasseg.train.recipes import recipe as named_recipe
from nasseg.train.trainer import Trainer
from nasseg.train.weights.loading import WeightsReport, load_pretrained

EVALUATION_BATCH = 4
SCORES_IN_A_RUN = 10


class RetrainConfig(BaseModel):
    """The resolved options of a retraining run: the content of its `config.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    train_split: str
    val_split: str
    weights: str | None
    recipe: Recipe
    device: str
    seed: int
    workers: int
    threads: int | None = None
    """Threads of the processor; older runs leave it to PyTorch."""


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
        changes: Mapping[str, object],
        device: str,
        seed: int,
        workers: int,
        space: str | None = None,
        show: Show = silent,
    ) -> Retraining:
        """Resolve the options against the architecture's file, check them, and make the run folder.

        Options that are `None` come from the file's provenance; weights `none` means random ones. `space` is the file's
        search space as the user names it, which one that is not registered needs (`plugins.space`). `show` takes the
        progress of reading the data. Raises `ValueError` for anything that could not work later.
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
        architecture = _for_classes(arch, architecture, dataset, space)
        if weights is None and known is not None:
            weights = known.weights
        train_split, val_split = drawn_splits(
            train_split or (own.train_split if own else "train"), val_split or (own.val_split if own else "val")
        )
        config = RetrainConfig(
            data=dataset.spec,
            train_split=train_split,
            val_split=val_split,
            weights=None if weights == "none" else weights,
            recipe=_recipe(recipe, architecture.name, dataset.split(train_split), changes),
            device=device,
            seed=seed,
            workers=workers,
            threads=threads_for(choose_device(device)),
        )
        retraining = cls(architecture, config, folder)
        retraining.warnings = review(dataset, config.train_split, config.val_split, show)
        retraining.network()
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

    def run(
        self, on_step: Callable[[Trainer, float, float], object], on_score: Callable[[int, Trainer, Metrics], object]
    ) -> Metrics:
        """Train to the end, score regularly on the validation split, and write the model file.

        `on_step` may raise `Stopped`; the state is then saved. Raises `ValueError` if the loss is not finite.
        """
        recipe = self.config.recipe
        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)
        every = max(1, recipe.steps // SCORES_IN_A_RUN)

        def after_step(trainer: Trainer, loss: float, learning_rate: float) -> None:
            on_step(trainer, loss, learning_rate)
            if trainer.step % every == 0 and trainer.step < recipe.steps:
                on_score(trainer.step, trainer, self.score(trainer))

        trainer, log = fit(
            self.network(),
            recipe,
            self.train,
            device=self.device,
            seed=self.config.seed,
            workers=self.config.workers,
            checkpoint=self.folder / CHECKPOINT_FILE,
            on_step=after_step,
        )
        if log.status == "nonfinite":
            raise ValueError(
                f"the loss is not finite at step {log.step}; lower --learning-rate (it is {recipe.learning_rate})"
            )
        metrics = self.score(trainer)
        on_score(trainer.step, trainer, metrics)
        save_model(self.folder / MODEL_FILE, trainer.ema_network(), self._provenance(metrics))
        (self.folder / CHECKPOINT_FILE).unlink(missing_ok=True)
        return metrics

    def score(self, trainer: Trainer) -> Metrics:
        """Score the averaged network on the validation split."""
        batches = (b for b, _ in evaluation_batches(self.val, EVALUATION_BATCH, self.device, self.config.workers))
        classes = len(self.dataset.classes)
        return evaluate(trainer.ema_network(), batches, classes, self.dataset.ignore_index, self.device)

    def network(self) -> Network:
        """The network that the training starts from: with pretrained weights if there are any, else random."""
        network = seeded_network(self.architecture, self.config.seed)
        if self.config.weights is not None:
            self.weights_report = load_pretrained(network, self.config.weights)
        return network

    def _provenance(self, metrics: Metrics) -> Provenance:
        config = self.config
        height, width = self.train[0].mask.shape
        known = Provenance.read(self.architecture)
        return Provenance(
            data=DataInfo.of(self.dataset, config.train_split, config.val_split, (height, width)),
            weights=config.weights,
            budget=f"{config.recipe.steps} steps",
            seed=config.seed,
            miou={**(known.miou if known else {}), f"retrained, {config.val_split}": metrics.miou},
            latency=known.latency if known else None,
            versions=versions(),
        )


def _for_classes(arch: str, architecture: Architecture, dataset: Dataset, named_by_user: str | None) -> Architecture:
    """Build the architecture for the data's classes: a name directly, a file from its choice."""
    classes = len(dataset.classes)
    if architecture.classes == classes:
        return architecture
    if not plugins.is_file(arch):
        return plugins.architecture(arch, classes)
    if architecture.space is None or architecture.choice is None:
        raise ValueError(
            f"{arch} has logits for {architecture.classes} classes, but {dataset.spec} has {classes}; give an "
            "architecture made for this data, or a baseline's name"
        )
    space = plugins.space(architecture.space, named_by_user=named_by_user, where=arch)
    rebuilt = space.architecture(space.parse(architecture.choice), classes)
    return rebuilt.replace(space=architecture.space, choice=architecture.choice, provenance=architecture.provenance)


def _recipe(name: str, architecture: str, train: Split, changes: Mapping[str, object]) -> Recipe:
    """Make the named recipe, its crop no larger than the images rounded up to multiples of 32, the largest stride."""
    height, width = train[0].mask.shape
    try:
        made = paper_recipe(architecture, **changes) if name == "paper" else named_recipe(name, **changes)
    except ValidationError as error:
        raise ValueError(one_line(error, "recipe")) from None
    if "crop" in changes:
        return made
    fitting = (-(-height // 32) * 32, -(-width // 32) * 32)
    crop = fitting if name in OWN_RECIPES else tuple(map(min, made.crop, fitting))
    return Recipe.model_validate({**made.model_dump(), "crop": crop})
