"""Training a candidate end to end on images: a reference or a finalist."""

from __future__ import annotations

from nasseg.data import evaluation_batches
from nasseg.jobs.context import Context
from nasseg.network import Network
from nasseg.planning.job import Candidate, Outcome
from nasseg.run_folder import trained_model, unfinished_training
from nasseg.train.checkpoint import save_checkpoint
from nasseg.train.evaluate import evaluate
from nasseg.train.fit import Stopped, fit
from nasseg.train.metrics import Metrics
from nasseg.train.model import save_model

EVALUATION_BATCH = 8


def train_end_to_end(context: Context, candidate: Candidate, seed: int, prepares: bool = False) -> Outcome:
    """Train a candidate on images, from its checkpoint if there is one, score it and save its model.

    A run that `prepares` the features of all candidates may be shorter, by the plan, and then has a model of its own.
    Raises `Stopped`, with the state in the checkpoint, if the search stops.
    """
    network = context.problem.starting_network(context.architecture(candidate), seed)
    model, recipe = trained_model(context.folder, candidate.key, seed), context.plan.full_recipe
    if prepares:
        model = context.prepared_model
        recipe = recipe.model_copy(update={"steps": context.plan.prepare_steps or recipe.steps})
    checkpoint = unfinished_training(model)
    trainer, log = fit(
        network,
        recipe,
        context.train,
        device=context.problem.device,
        seed=seed,
        checkpoint=checkpoint,
        on_pause=lambda trainer: context.raise_if_stopped(),
    )
    if log.status == "nonfinite":
        checkpoint.unlink(missing_ok=True)
        return context.outcome(candidate, "nonfinite", log.step)
    averaged = trainer.ema_network()
    try:
        metrics = score_on_images(context, averaged)
    except Stopped:
        save_checkpoint(checkpoint, trainer.state_dict())
        raise
    provenance = context.provenance.model_copy(update={"miou": {"search": metrics.miou}})
    save_model(model, averaged, provenance)
    checkpoint.unlink(missing_ok=True)
    return context.outcome(candidate, "ok", log.step, metrics)


def score_on_images(context: Context, network: Network) -> Metrics:
    """Score a network on the whole images of the validation split."""
    split = context.val
    named_batches = context.until_stopped(evaluation_batches(split, EVALUATION_BATCH, context.problem.device))
    batches = (batch for batch, _ in named_batches)
    return evaluate(network, batches, context.problem.classes, split.ignore_index, context.problem.device)
