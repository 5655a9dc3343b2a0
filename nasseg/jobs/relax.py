"""Training and decoding the relaxation of a space."""

from __future__ import annotations

from nasseg.jobs.context import Context
from nasseg.planning.job import Job
from nasseg.planning.limits import excess
from nasseg.run_folder import relaxation_checkpoint, relaxation_snapshot
from nasseg.space import Choice
from nasseg.space.relaxation import Relaxable
from nasseg.train.relaxation.decoding import decode_within
from nasseg.train.relaxation.trainer import RelaxationTrainer, fit_relaxation, seeded_relaxation


def train_relaxation(context: Context, job: Job) -> list[Choice]:
    """Train the space's relaxation from its checkpoint to the job's last step, and decode it.

    Before the first update of its architecture nothing is returned, as it would decode to a random choice. Raises
    `RuntimeError` if the loss is not finite.
    """
    recipe = context.plan.relax_recipe
    assert recipe is not None
    assert isinstance(context.problem.space, Relaxable)
    relaxation = seeded_relaxation(context.problem.space, context.problem.classes, recipe.options, job.seed)
    relaxation.price(context.problem.pricing.op_cost, context.problem.size, context.problem.pricing.fixed_cost)
    trainer = RelaxationTrainer(relaxation, recipe, context.train, context.problem.device, job.seed)
    snapshot = relaxation_snapshot(context.folder, job.seed)
    snapshot.parent.mkdir(exist_ok=True)
    checkpoint = relaxation_checkpoint(context.folder, job.seed)
    if fit_relaxation(trainer, job.stop_step, checkpoint, snapshot, context.raise_if_stopped) == "nonfinite":
        raise RuntimeError(f"the relaxation's loss is not finite in step {trainer.step}")
    if trainer.step <= recipe.first_architecture_step:
        return []

    def keeps_limits(choice: Choice) -> bool:
        return excess(context.problem.pricing.constraints(context.problem.architecture(choice))) == 0

    return [context.problem.space.canonical(decode_within(relaxation, keeps_limits))]
