"""Short runs that rank candidates: on stored features, or end to end from pretrained or inherited weights."""

from __future__ import annotations

from collections.abc import Iterator

from nasseg.data import Batch, training_batches
from nasseg.graph import Architecture
from nasseg.jobs.context import Context
from nasseg.jobs.end_to_end import score_on_images
from nasseg.jobs.features import SharedFeatures
from nasseg.network import Network
from nasseg.planning.job import Candidate, Job, Outcome
from nasseg.run_folder import INHERITED_WEIGHTS_FOLDER, proxy_checkpoint
from nasseg.train.checkpoint import restore, save_checkpoint
from nasseg.train.evaluate import evaluate
from nasseg.train.fit import seeded_network
from nasseg.train.metrics import Metrics
from nasseg.train.trainer import Trainer
from nasseg.train.weights.inheritance import WeightStore


class Proxy:
    """The training of candidates from rung to rung.

    If the space has a shared stage, only the part after it is trained, on `features`. Otherwise whole networks are
    trained on images, from pretrained weights as finalists are, or else from the `weights` of earlier trials, unless
    the search does not inherit (`Problem.inherits`).
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        stage = context.problem.space.shared_stage
        self.features = SharedFeatures(context, stage) if stage else None
        folder = context.folder / INHERITED_WEIGHTS_FOLDER
        self.weights = WeightStore(folder) if context.problem.inherits else None

    def train(self, job: Job) -> tuple[Outcome, ...]:
        """Train the job's candidates side by side, each batch read once for all of them, and score them.

        They go on from their checkpoints. Where one was removed, as its candidate seemed to be out of the race, all
        begin anew, and end as if they had gone on. A candidate whose loss is not finite leaves the others alone.
        """
        checkpoints = [proxy_checkpoint(self._context.folder, c.key, job.start_step) for c in job.candidates]
        start_step = job.start_step if all(path.exists() for path in checkpoints) else 0
        trainers = [self._trainer(candidate, job.seed) for candidate in job.candidates]
        if start_step:
            for trainer, checkpoint in zip(trainers, checkpoints, strict=True):
                restore(trainer, checkpoint, self._context.problem.device)
        alive = list(trainers)
        batches = self._context.until_stopped(self.training_batches(job.seed, start_step))
        for _ in range(start_step, job.stop_step):
            batch = next(batches)
            alive = [trainer for trainer in alive if trainer.run([batch], trainer.step + 1).status != "nonfinite"]
        return tuple(
            self._finished(candidate, trainer, job.stop_step)
            if trainer in alive
            else self._context.outcome(candidate, "nonfinite", trainer.step)
            for candidate, trainer in zip(job.candidates, trainers, strict=True)
        )

    def trained_part(self, architecture: Architecture) -> Architecture:
        """Return the part of a network that is trained: the part after the shared stage, or all of it."""
        stage = self._context.problem.space.shared_stage
        return architecture.cut(stage)[1] if stage else architecture

    def training_batches(self, seed: int, start_step: int) -> Iterator[Batch]:
        """Yield endless batches for the trained part, which depend only on seed and step."""
        if self.features is not None:
            return self.features.training_batches(seed, start_step)
        context, recipe = self._context, self._context.plan.proxy_recipe
        return training_batches(
            context.train, recipe.augment, recipe.batch_size, seed, start_step, context.problem.device
        )

    def score(self, network: Network) -> Metrics:
        """Score the trained part on the validation split."""
        context = self._context
        if self.features is None:
            return score_on_images(context, network)
        batches, ignore_index = context.until_stopped(self.features.evaluation_batches()), context.val.ignore_index
        return evaluate(network, batches, context.problem.classes, ignore_index, context.problem.device)

    def _trainer(self, candidate: Candidate, seed: int) -> Trainer:
        context, recipe = self._context, self._context.plan.proxy_recipe
        architecture = context.architecture(candidate)
        if self.features is None:
            network = context.problem.starting_network(architecture, seed)
        else:
            network = seeded_network(self.trained_part(architecture), seed)
        if self.weights is not None:
            self.weights.load_into(network)
        return Trainer(network, recipe, recipe.steps, context.problem.device, seed, context.train.ignore_index)

    def _finished(self, candidate: Candidate, trainer: Trainer, step: int) -> Outcome:
        metrics = self.score(trainer.ema_network())
        if self.weights:
            self.weights.save(trainer.network)
        if step < self._context.plan.rungs[-1]:
            checkpoint = proxy_checkpoint(self._context.folder, candidate.key, step)
            save_checkpoint(checkpoint, trainer.state_dict())
        return self._context.outcome(candidate, "ok", trainer.step, metrics)
