"""Beginning a search: what was asked for is checked, the machine is timed, the plan made, the folder filled."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nasseg import plugins
from nasseg.errors import one_line
from nasseg.experiment.experiment import Experiment
from nasseg.jobs.context import Context, Problem
from nasseg.jobs.speed import measure_speed
from nasseg.planning.budget import Budget
from nasseg.planning.config import SearchConfig, check_sampler, cores
from nasseg.planning.limits import require_reachable
from nasseg.planning.plan import Dials, Hardware, derive_plan
from nasseg.run_folder import LATENCY_TABLE_FILE, check_new, new_folder
from nasseg.space import Space
from nasseg.space.relaxation import Relaxable
from nasseg.train.fit import seeded_network
from nasseg.train.weights import load_pretrained

CHECKED = 50
"""Random networks whose operators a latency table must have."""
REHEARSAL_SCALE = 0.5
"""Images are this share of their size while the speed is measured."""


def plan_search(problem: Problem, given: Mapping[str, Any], concurrency: int | None = None) -> SearchConfig:
    """Check what a search was asked for, time the machine, and fill in the plan.

    `given` are the `Dials` that the user set. Raises `ValueError` for anything that could not work later: data,
    space, weights, sampler, budget.
    """
    config, space = problem.options, problem.space
    dials = Dials.model_validate(given)
    by_gradient = config.strategy == "gradient"
    _check_strategy(config, space, dials)
    hardware = Hardware.of(problem.device, cores(), concurrency, dials.gpus_per_trial)
    config.budget.wall_seconds(hardware.cores, hardware.gpus)
    problem.train.check()
    problem.val.check()
    references = space.references()
    if config.weights is not None:
        first = problem.architecture(next(iter(references.values())))
        load_pretrained(seeded_network(first, 0), config.weights)
    check_costs(problem)
    options = dials.relaxation_options(problem.device) if by_gradient else None
    speed = measure_speed(space, problem.train, REHEARSAL_SCALE, problem.device, hardware.threads, options)
    plan = derive_plan(
        config.budget,
        speed,
        hardware,
        size=problem.size,
        train_images=len(problem.train),
        val_images=len(problem.val),
        references=len(references),
        strategy=config.strategy,
        cost_weight=config.cost_weight,
        **given,
    )
    return config.model_copy(update={"plan": plan})


def check_costs(problem: Problem) -> None:
    """Raise `ValueError` if a search cannot go by its latency table or keep its limits.

    The message says how to make a table that fits.
    """
    options, space = problem.options, problem.space
    height, width = problem.size
    profile = (
        f"nasseg profile --space {options.space} --size {height}x{width} --classes {problem.classes} --out TABLE.json"
    )
    table = problem.pricing.table
    if table is not None:
        rng = random.Random("operators to check")
        choices = [*space.references().values(), *(space.sample(rng) for _ in range(CHECKED))]
        try:
            table.check(problem.size, table.conditions.dtype, [problem.architecture(choice) for choice in choices])
        except ValueError as error:
            raise ValueError(f"{options.latency}: {error}: {profile}") from None
    elif options.limits.latency_ms is not None:
        raise ValueError(f"target_latency needs a latency table, from the target device; make it with {profile}")
    require_reachable(options.limits, space, lambda choice: problem.pricing.costs(problem.architecture(choice)))


def begin(out: Path, config: SearchConfig, given: Mapping[str, Any], concurrency: int | None = None) -> Experiment:
    """Plan a search, as `plan_search` does, and make its run folder `out`.

    Raises `ValueError` for anything that could not work later, and then leaves nothing behind.
    """
    check_new(out)
    check_sampler(config.sampler)
    problem = Problem(config)
    planned = plan_search(problem, given, concurrency)
    with new_folder(out):
        planned.save(out)
        if config.latency is not None:
            shutil.copyfile(config.latency, out / LATENCY_TABLE_FILE)
        assert planned.plan is not None
        return Experiment(planned, Context(problem, planned.plan, out))


def begin_with(out: Path, *, budget: str, concurrency: int | None, **options: Any) -> Experiment:
    """`begin` with the fields of `SearchConfig` and of `Dials` side by side."""
    fields, dials = [name for name in SearchConfig.model_fields if name not in {"budget", "plan"}], Dials.model_fields
    if unknown := [name for name in options if name not in {*fields, *dials}]:
        raise ValueError(f"unknown option {unknown[0]!r}; known: {', '.join([*fields, *dials])}")
    given = {name: value for name, value in options.items() if name in dials}
    asked = {name: value for name, value in options.items() if name in fields}
    try:
        return begin(out, SearchConfig(budget=Budget.parse(budget), **asked), given, concurrency)
    except ValidationError as error:
        raise ValueError(one_line(error)) from None


def _check_strategy(config: SearchConfig, space: Space[Any], dials: Dials) -> None:
    by_gradient = config.strategy == "gradient"
    if by_gradient and not isinstance(space, Relaxable):
        spaces = plugins.names(plugins.SPACES)
        able = [name for name in spaces if hasattr(plugins.loaded(plugins.SPACES, name), "relaxation")]
        raise ValueError(f"space {config.space!r} cannot be searched by gradient; those that can: {', '.join(able)}")
    if not by_gradient and dials.of_gradient():
        raise ValueError(f"{next(iter(dials.of_gradient()))} is for strategy gradient; set that too, or leave it out")
