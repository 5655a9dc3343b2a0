"""Texts about a search: its plan, and the command that goes on with it."""

from __future__ import annotations

import shlex

from nasseg import plugins
from nasseg.database import without_password
from nasseg.experiment.experiment import Experiment
from nasseg.planning.budget import Budget
from nasseg.planning.final.runs import FINAL_REFERENCES

FEWEST_CANDIDATES = 10
"""Expected candidates below which the plan warns."""
FEWEST_RELAX_STEPS = 100
"""Steps of a relaxation below which the plan warns."""


def plan_text(search: Experiment) -> str:
    """Describe the plan of a search in a few lines, before it starts."""
    plan, config = search.plan, search.config
    candidates = f"{plan.candidates} candidates" if plan.candidates else "as many candidates as the time allows"
    few = ""
    if plan.expected_candidates is not None:
        candidates += f" (about {plan.expected_candidates})"
        if plan.expected_candidates < FEWEST_CANDIDATES:
            few = "these are few: give a larger --budget, or fewer --finalists or --seeds\n"
    gradient = ""
    if plan.relax_recipe is not None:
        count, start = plan.relaxations, plan.relax_recipe.first_architecture_step
        candidates += ", the references and what the gradient finds first"
        gradient = (
            f"gradient: {count} relaxation{'s' * (count > 1)}, {plan.relax_steps} steps each, "
            f"the architecture from step {start} on\n"
        )
        if plan.relax_steps < FEWEST_RELAX_STEPS:
            gradient += "too few steps to learn much: give a larger --budget, or a smaller space (see its options)\n"
    size = search.problem.space.size()
    runs = "proxy" if search.rung_runs == "proxy" else "short runs"
    steps = f"step {plan.rungs[0]}"
    if len(plan.rungs) > 1:
        steps = f"steps {', '.join(map(str, plan.rungs))}, the best 1/{plan.reduction} go on"
    points = "" if size is None else f" ({size:,} points)"
    return (
        f"space {config.space}{points}, data {config.data}, budget {config.budget}\n"
        f"images at {plan.image_scale:g} of their size, crops {'x'.join(map(str, plan.full_recipe.crop))}, "
        f"batches of {plan.full_recipe.batch_size}, {plan.concurrency} jobs at once on {search.problem.device}\n"
        f"{gradient}"
        f"{runs}, {_how(search)}: {candidates}, compared at {steps}, sampler {config.sampler}\n"
        f"{few}"
        f"end to end: {plan.full_steps} steps, {plan.finalists} finalists and {_references(search)}, "
        f"{plan.seeds} seeds each; then fresh seeds of the best found and of the best reference\n"
        f"{_goal_text(search)}\n"
        f"run folder {search.folder}"
    )


def training_text(search: Experiment) -> str:
    """Describe in a sentence how the candidates of a search were trained."""
    plan = search.plan
    return (
        f"Trained {_how(search)} for {' or '.join(map(str, plan.rungs))} steps; "
        f"the finalists and {_references(search)} end to end, {plan.full_steps} steps."
    )


def _references(search: Experiment) -> str:
    count = len(search.problem.references)
    return "the references" if count <= FINAL_REFERENCES else f"the best {FINAL_REFERENCES} of {count} references"


def _how(search: Experiment) -> str:
    """Tell what trainings up to a rung start from."""
    if search.problem.space.shared_stage is not None:
        return "on stored features"
    if search.config.weights is not None:
        return "end to end from pretrained weights"
    return f"end to end from {'the weights of earlier ones' if search.problem.inherits else 'random weights'}"


def _goal_text(search: Experiment) -> str:
    """Describe what is maximised, and within which limits."""
    objective, limits, table = search.objective, search.config.limits, search.problem.pricing.table
    if table is None:
        name, cost, where = "MAdds", f"{objective.reference_cost / 1e9:.2f} G", ""
    else:
        name, cost, where = "latency", f"{objective.reference_cost:.2f} ms", f" on {table.conditions.device}"
    whose = "the target" if limits.latency_ms else f"that of the handcrafted {next(iter(search.problem.references))}"
    score = f"score = mIoU · ({name} / {cost})^{objective.weight:g}, where {cost} is {whose}{where}"
    beyond = f"a front of mIoU and {name}; its best is the most accurate up to {cost}, and beyond by {score}"
    aim = beyond if objective.aim == "pareto" else score
    return f"{aim}\nlimits: {limits}" if limits.given else aim


def resume_command(search: Experiment, budget: Budget | None = None) -> str:
    """Format the command that goes on with a search, with another budget if one is given.

    It repeats the options that are not taken from a file alone.
    """
    config = search.config
    options = {
        "out": str(search.folder),
        "space": None if plugins.is_registered(config.space) else config.space,
        "storage": None if config.storage is None else without_password(config.storage),
        "ray-address": config.ray_address,
        "budget": None if budget is None else str(budget),
    }
    given = (f" --{name} {shlex.quote(value)}" for name, value in options.items() if value is not None)
    return f"nasseg search --resume{''.join(given)}"
