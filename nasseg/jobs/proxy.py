"""Short runs that rank candidates: on stored features, or end to end from pretrained or inherited weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from nasseg.data import Batch, training_batches
from nasseg.graph import Architecture, ArchitectureError, following
from nasseg.jobs.context import Context
from nasseg.jobs.end_to_end import score_on_images
from nasseg.jobs.features import SharedFeatures
from nasseg.network import Network
from nasseg.planning.job import Candidate, Job, Outcome
from nasseg.run_folder import INHERITED_WEIGHTS_FOLDER, proxy_checkpoint
from nasseg.train.checkpoint import restore, save_checkpoint
from nasseg.train.device import steps_ahead
from nasseg.train.evaluate import evaluate
from nasseg.train.fit import seeded_network
from nasseg.train.metrics import Metrics
from nasseg.train.trainer import Trainer
from nasseg.train.weights.inheritance import WeightStore


class Proxy:
    """The training of candidates from rung to rung.

    If the space has a shared stage, only the part after its stored nodes is trained, on `features`. Otherwise whole
    networks are trained on images, from pretrained weights as finalists are, or else from the `weights` of earlier
    trials, unless the search does not inherit (`Problem.inherits`).
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
        begin anew, and end as if they had gone on. A candidate whose loss is not finite, or that the stored features
        do not fit, leaves the others alone.
        """
        made = {candidate.key: self._trainer_or_failure(candidate, job) for candidate in job.candidates}
        trainers = {key: trainer for key, trainer in made.items() if isinstance(trainer, Trainer)}
        checkpoints = [proxy_checkpoint(self._context.folder, key, job.start_step) for key in trainers]
        start_step = job.start_step if all(path.exists() for path in checkpoints) else 0
        if start_step:
            for trainer, checkpoint in zip(trainers.values(), checkpoints, strict=True):
                restore(trainer, checkpoint, self._context.problem.device)
        batches = self._context.until_stopped(self.training_batches(job.seed, start_step))
        together = steps_ahead(self._context.problem.device)
        alive = list(trainers)
        for start in range(start_step, job.stop_step, together):
            stop = min(start + together, job.stop_step)
            run: Iterable[Batch] = islice(batches, stop - start)
            if len(alive) > 1:
                run = list(run)
            alive = [key for key in alive if trainers[key].run(run, stop).status == "finished"]
        return tuple(self._ended(c, made[c.key], c.key in alive, job.stop_step) for c in job.candidates)

    def trained_part(self, architecture: Architecture) -> Architecture:
        """Return the part of a network that is trained: what follows the stored nodes, or all of it.

        Raises `ArchitectureError` for a network that has other nodes in their place.
        """
        return architecture if self.features is None else following(architecture, self.features.stored)

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

    def _trainer_or_failure(self, candidate: Candidate, job: Job) -> Trainer | Outcome:
        """Make a candidate's trainer, or its outcome if the stored features are not those of its nodes."""
        try:
            return self._trainer(candidate, job.seed)
        except ArchitectureError as error:
            return self._context.outcome(candidate, "unfit", job.start_step, message=str(error))

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

    def _ended(self, candidate: Candidate, made: Trainer | Outcome, is_finite: bool, step: int) -> Outcome:
        if isinstance(made, Outcome):
            return made
        if not is_finite:
            return self._context.outcome(candidate, "nonfinite", made.step)
        metrics = self.score(made.ema_network())
        if self.weights:
            self.weights.save(made.network)
        if step < self._context.plan.rungs[-1]:
            checkpoint = proxy_checkpoint(self._context.folder, candidate.key, step)
            save_checkpoint(checkpoint, made.state_dict())
        return self._context.outcome(candidate, "ok", made.step, metrics)
