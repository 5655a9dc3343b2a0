"""Beginning a search: checking its options, timing the machine, planning, and filling the folder."""

from __future__ import annotations

import math
import random
import secrets
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nasseg import plugins
from nasseg.cost.calibration import POOR
from nasseg.data.checking import class_weights_for, review
from nasseg.experiment.experiment import Experiment
from nasseg.experiment.machine_table import SILENT, Watcher, table_of_this_machine
from nasseg.experiment.shared import found, join, to_join
from nasseg.graph import Architecture
from nasseg.jobs.contention import measure_contention
from nasseg.jobs.context import Context, Problem
from nasseg.jobs.speed import measure_speed
from nasseg.planning.budget import Budget
from nasseg.planning.config import Fingerprints, Plan, SearchConfig
from nasseg.planning.fitting import require_fit
from nasseg.planning.limits import require_reachable
from nasseg.planning.machine import Hardware, Machine, Room, Speed, cores, free_memory_bytes
from nasseg.planning.options import SearchOptions
from nasseg.planning.plan import derive_plan, search_crop
from nasseg.planning.relaxations import relaxation_options
from nasseg.planning.samplers import find_sampler
from nasseg.run_folder import LATENCY_TABLE_FILE, check_new, free_disk_bytes, new_folder
from nasseg.space import Space
from nasseg.space.relaxation import Relaxable, RelaxationOptions

CHECKED = 50
"""Random networks whose operators a latency table must have, and whose backbones pretrained weights."""
FEWEST_NEW = 5
"""Candidates besides the references that the smallest budget named in a refusal tries."""
MOST_TIMES_THE_BUDGET = 1000
TIMED = 4
"""Networks whose training steps are timed, where they differ."""
UNTIMED_FACTOR = 2.0
"""Networks that are not timed yet may be so many times as fast as those that are."""
REHEARSAL_SCALE = 0.5
"""Scale of images while the speed is measured."""

PlanFor = Callable[[SearchOptions], Plan]
"""Makes the plan of a search, on this machine and data, with other options."""


def plan_search(problem: Problem, watcher: Watcher = SILENT, disk_bytes: float = math.inf) -> SearchConfig:
    """Check the options of a search, time the machine, and make the plan.

    Memory and `disk_bytes` bound the jobs at once, the images' scale and the stored features. A target latency without
    a table is by this machine's, which is measured now if there is none. Raises `ValueError` for anything that would
    fail later: data, space, weights, sampler, budget, memory.
    """
    options, space = problem.options, problem.space
    by_gradient = options.strategy == "gradient"
    if by_gradient:
        _check_relaxable(options.space, space)
    cluster = () if options.ray_address is None else machines_at(options.ray_address)
    hardware = Hardware.of(problem.device, cores(), options.concurrency, options.gpus_per_trial, cluster).model_copy(
        update={"memory_bytes": free_memory_bytes(problem.device), "disk_bytes": disk_bytes}
    )
    Budget.parse(options.budget).wall_seconds(hardware.cores, hardware.gpus)  # GPU-hours need a GPU
    for warning in review(problem.dataset, options.train_split, options.val_split, watcher.show):
        watcher.say(f"warning: {warning}")
    given = options.class_weights
    weights = None if given is None else class_weights_for(given, problem.train, watcher.show)
    check_weights(problem)
    if options.limits.latency_ms is not None and options.latency is None:
        problem.price_by(table_of_this_machine(problem, hardware, watcher))
    check_costs(problem, watcher)
    relaxation = relaxation_options(options, problem.device) if by_gradient else None
    plan_for, room = _measured(problem, hardware, relaxation, watcher)
    plan = plan_for(options)
    while (jobs := room.jobs(plan.image_scale)) < hardware.workers_together:
        if options.concurrency or options.gpus_per_trial:
            room.require(plan.image_scale, hardware.workers_together)
        hardware = hardware.with_jobs_together(int(jobs))
        watcher.say(f"memory suffices for {hardware.workers} jobs at once")
        plan_for, room = _measured(problem, hardware, relaxation, watcher)
        plan = plan_for(options)
    _require_candidates(options, plan_for, len(problem.references))
    weighted = {"class_weights": weights}
    recipes = {name: getattr(plan, name).model_copy(update=weighted) for name in ("proxy_recipe", "full_recipe")}
    plan = plan.model_copy(update={**recipes, "resident_bytes": room.spare_bytes(plan.image_scale)})
    derived = {"sampler": problem.sampler, "objective": problem.aim}
    table = problem.pricing.table
    fingerprints = problem.fingerprints.model_copy(update={"latency": table and table.fingerprint})
    times = room.times(plan.image_scale, plan.views).longer(room.contention)
    return SearchConfig.of(problem.options.model_copy(update=derived), plan, times, fingerprints)


def machines_at(ray_address: str) -> tuple[Machine, ...]:
    """Return the machines of a Ray cluster; raises `ValueError` if a search cannot join it."""
    from nasseg.jobs.runners import ray_session

    return ray_session.machines(ray_address)


def _measured(
    problem: Problem, hardware: Hardware, relaxation: RelaxationOptions | None, watcher: Watcher
) -> tuple[PlanFor, Room]:
    """Measure what training steps take on the hardware; return what makes plans from it, and what there is room for.

    Raises `ValueError` as soon as it is known that the budget does not suffice.
    """
    options, references = problem.options, len(problem.references)
    typical, train_images, val_images = _typical(problem), len(problem.train), len(problem.val)
    made_for = partial(
        derive_plan,
        hardware=hardware,
        size=problem.size,
        train_images=train_images,
        val_images=val_images,
        references=references,
    )

    def check(smallest: Speed, is_all: bool) -> None:
        """Refuse a budget that would not suffice for the smallest images if jobs did not slow each other down.

        As long as networks are left to be timed, those may turn out to be faster.
        """
        least = options.model_copy(update={"image_scale": min(options.image_scale or 1, smallest.image_scale)})
        alone = smallest.faster(1 if is_all else UNTIMED_FACTOR).model_copy(update={"contention": 1.0})
        _require_candidates(least, partial(made_for, speed=alone), references, partial(made_for, speed=smallest))

    speed = measure_speed(
        problem.space,
        typical,
        problem.train,
        problem.size,
        REHEARSAL_SCALE,
        problem.device,
        hardware.threads,
        relaxation,
        check,
    )
    room = Room(hardware, speed, problem.size, train_images, val_images)
    together = int(min(hardware.workers_together, room.jobs(REHEARSAL_SCALE)))
    if Budget.parse(options.budget).trials is None and together > 1:
        crop = search_crop(problem.size, REHEARSAL_SCALE)
        times_longer = measure_contention(typical[0], crop, problem.device, hardware.threads, together)
        watcher.say(f"beside each other, the steps of {together} jobs take {times_longer:.2f} times as long")
        speed = speed.model_copy(update={"contention": times_longer})
        room = replace(room, speed=speed)
    return partial(made_for, speed=speed), room


def _require_candidates(
    options: SearchOptions, plan_for: PlanFor, references: int, advises: PlanFor | None = None
) -> None:
    """Raise `ValueError` if a budget suffices for the references alone; the message says which would do for a few more.

    That budget is by `advises`, if it is given, instead of `plan_for`.
    """
    expected = plan_for(options).expected_candidates
    if expected is None or expected > references:
        return
    given, factor, enough = Budget.parse(options.budget), 1.0, options.budget
    while expected < references + FEWEST_NEW and factor < MOST_TIMES_THE_BUDGET:
        factor *= 1.1
        enough = str(given.model_copy(update={"amount": float(f"{factor * given.amount:.2g}")}))
        expected = (advises or plan_for)(options.model_copy(update={"budget": enough})).expected_candidates or 0
    fix = f"give --budget {enough} or more" if expected >= references + FEWEST_NEW else "ask for shorter --rungs"
    raise ValueError(f"budget {given} suffices for the {references} handcrafted references alone; {fix}")


def _typical(problem: Problem) -> list[Architecture]:
    """The networks whose speed is measured: the first reference and, if whole networks are trained, some others."""
    choices = list(problem.references.values())[:1]
    if problem.space.shared_stage is None:
        rng = random.Random("networks to time")
        choices += [problem.fitting.draw(rng).choice for _ in range(TIMED - 1)]
    return [problem.architecture(choice) for choice in choices]


def check_weights(problem: Problem) -> None:
    """Raise `ValueError` if a reference or, if backbones are not shared, another network found has no given weights.

    The message names the backbone and the files.
    """
    if problem.pretrained is None:
        return
    space, rng, checked = problem.space, random.Random("backbones to check"), set()
    drawn = (space.sample(rng) for _ in range(0 if space.shared_stage else CHECKED))
    for choice in (*space.references().values(), *drawn):
        architecture = problem.architecture(choice)
        if architecture.backbone is None or architecture.backbone.name not in checked:
            problem.starting_network(architecture, seed=0)
            checked.add(architecture.backbone and architecture.backbone.name)


def check_costs(problem: Problem, watcher: Watcher = SILENT) -> None:
    """Raise `ValueError` if the latency table does not fit the search or its limits cannot be kept; warn of a poor one.

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
        if table.error.is_poor:
            watcher.say(
                f"warning: the latency table {options.latency} is {table.error}; {POOR}: remove it, end other programs "
                "and measure again"
            )
    require_reachable(options.limits, space, lambda choice: problem.pricing.costs(problem.architecture(choice)))
    require_fit(problem.fitting, options.limits)


def begin(out: Path, options: SearchOptions, watcher: Watcher = SILENT) -> Experiment:
    """Plan a search, as `plan_search` does, and make its run folder `out`.

    It can be resumed from any working folder. If the options name a study that exists, the search joins it: what makes
    scores comparable is as there. Raises `ValueError` for anything that would fail later; then nothing is left behind.
    """
    check_new(out)
    first = to_join(options)
    joined = options if first is None else first.joined(options.from_anywhere(), str(options.study))
    problem = Problem(joined.from_anywhere())
    find_sampler(problem.sampler)
    if first is not None:
        check_content(problem, first)
    config = plan_search(problem, watcher, free_disk_bytes(out))
    search_id = secrets.token_hex(16)
    study = None if config.storage is None else config.study or f"{out.name}-{search_id[:6]}"
    config = config.model_copy(update={"study": study, "search_id": search_id})
    if first is not None:
        config = config.comparable(first)
        join(config)
    elif config.storage is not None and not found(config, problem.objective):
        return begin(out, options, watcher)  # another search has made the study meanwhile
    with new_folder(out):
        config.save(out)
        if config.latency is not None:
            shutil.copyfile(config.latency, out / LATENCY_TABLE_FILE)
        search = Experiment(config, Context(problem, config.plan, out, config.fingerprints))
    if first is not None:
        others, known = search.record.place.number, len(search.planner.trials)
        watcher.say(f"joins study {study!r}: {others} other search{'es' * (others > 1)}, {known} candidates so far")
    return search


def check_content(problem: Problem, first: SearchConfig) -> None:
    """Raise `ValueError` if data, weights or latency table are not those of the `first` search of a study to join."""
    study, known = problem.options.study, first.fingerprints or Fingerprints(train="", val="")
    if (what := problem.differing(known)) is not None:
        raise ValueError(
            f"{what} is not what study {study!r} is searched on, or is a copy whose files have other times (rsync -a "
            "keeps them); give the same, or name another study"
        )
    table = problem.pricing.table
    if (table and table.fingerprint) != known.latency:
        counted, fix = "latency by another table", "give --latency with latency.json of its first search"
        if known.latency is None:
            counted, fix = "MAdds", "leave out --latency"
        raise ValueError(f"study {study!r} counts {counted}; {fix}")


def _check_relaxable(name: str, space: Space[Any]) -> None:
    if not isinstance(space, Relaxable):
        spaces = plugins.names(plugins.SPACES)
        able = [name for name in spaces if hasattr(plugins.loaded(plugins.SPACES, name), "relaxation")]
        raise ValueError(f"space {name!r} cannot be searched by gradient; those that can: {', '.join(able)}")
