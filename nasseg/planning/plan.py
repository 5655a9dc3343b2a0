"""Deriving the plan of a search from its options and the measured speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nasseg.data.resized import scaled
from nasseg.planning.case import STARTING_SECONDS, Case
from nasseg.planning.config import Plan
from nasseg.planning.final.runs import FINAL_REFERENCES, LEAST_PROXY_SHARE
from nasseg.planning.final.timeline import Timeline
from nasseg.planning.halving import longest_that, mean_work
from nasseg.planning.machine import Hardware, JobTimes, Speed
from nasseg.planning.options import SearchOptions
from nasseg.planning.relaxations import relax_recipe, relaxation_options
from nasseg.train.recipes import short
from nasseg.train.relaxation.recipe import ARCHITECTURE_START, RelaxationRecipe

LABEL_STRIDE = 4
"""Stride of the masks that proxies are trained and scored on."""
REDUCTION = 3
VIEWS = 4
"""Augmented copies of each image whose features are cached, fewer where the disk does not hold them."""
IMAGE_SCALES = (1.0, 0.75, 0.5, 0.375, 0.25)

FULL_SHARE = 0.5
"""Share of the time for training end to end: first the handcrafted reference, later the finalists."""
MOST_RUN_SHARE = 0.125
"""Share of the time for one such run, so that even where it takes three times as long a final can follow."""
FEWEST_FULL_STEPS = 120
"""Of end-to-end runs; images are scaled down, within `IMAGE_SCALES`, until the time suffices for these."""
SHORTEST_STEPS = 10
"""Of any run, however short the time."""
MOST_WAITING_SHARE, MOST_WAITING_SHARE_OF_HOURS = 0.02, 0.01
"""Share of all workers' time, in shorter budgets and from an hour on, to wait for features that are prepared apart."""
FEWEST_PREPARE_STEPS = 120
"""Features of backbones trained for so long rank cells (docs/results/proxy.md); of shorter ones, nobody knows."""

FEWEST_CANDIDATES = 45
GROWTH = 0.6
"""Candidates grow with this power of the workers at least, by shorter rungs or smaller images."""
FEWEST_PER_REFERENCE = 2
"""Where trials train whole networks, images are scaled down until so many candidates a reference can be tried."""
FIRST_RUNG_STEPS, WHOLE_FIRST_RUNG_STEPS = (20, 300), (120, 300)
"""Fewest and most steps of the first rung, of heads on features and of whole networks (`benchmarks/short_runs.py`)."""
MOST_TRIAL_SHARE, MOST_TRIAL_SHARE_OF_HOURS = 0.06, 0.025
"""Share of the time for one first rung, in shorter budgets and from an hour on: at the end, each worker waits for half
of one on average, as jobs end at any time, and a little more, as no job may end late."""

RELAX_SHARE = 0.5
"""Share of the rest for relaxations, in a search by gradient; trials continue from their results with what remains."""
LEAST_RELAX_SHARE = 0.8 * LEAST_PROXY_SHARE
"""Share of the budget that relaxations may always use, however long the final takes."""
FEWEST_RELAXATIONS, MOST_RELAXATIONS = 2, 4

TRIALS_FULL_STEPS, TRIALS_FIRST_RUNG_STEPS, TRIALS_RELAX_STEPS = 200, 60, 400
"""For a budget of trials, which has no clock."""
TRIALS_SMALL_SIDE_PIXELS = 200
"""For a budget of trials, images larger than this on both sides are halved."""


@dataclass(frozen=True)
class _Lengths:
    """The length of all runs, and the shares of the budget at which relaxations and proxies end."""

    image_scale: float
    views: int
    full_steps: int
    prepare_steps: int | None
    rungs: tuple[int, ...]
    relax_steps: int
    proxy_share: float
    relax_share: float
    timely: float = 0.0
    """Candidates that are tried in time for the final."""
    late: int = 0

    @property
    def candidates(self) -> float:
        return self.timely + self.late


def derive_plan(
    options: SearchOptions,
    speed: Speed,
    hardware: Hardware,
    *,
    size: tuple[int, int],
    train_images: int,
    val_images: int,
    references: int,
) -> Plan:
    """Make the plan that spends the budget well; options that are given are kept.

    Half of the time goes into training end to end (`FULL_SHARE`), at the largest image scale that allows
    `FEWEST_FULL_STEPS` and, where trials train whole networks, `FEWEST_PER_REFERENCE`. The rest goes into proxies,
    first for `FEWEST_CANDIDATES` candidates, then for longer rungs, then for more candidates. For a budget of trials,
    the plan does not depend on the speed.

    In a search by gradient, `RELAX_SHARE` of the rest goes into relaxations, as many as can be trained at once (at
    least two from an hour on), and what remains into proxies of the choices found and their neighbours.
    """
    case = Case(options, speed, hardware, size, train_images, val_images, references)
    relaxations = _count_relaxations(case)
    lengths = _lengths_of_trials(case, relaxations) if math.isinf(case.seconds) else _fit(case)
    crop = search_crop(size, lengths.image_scale)
    return Plan(
        image_scale=lengths.image_scale,
        rungs=lengths.rungs,
        full_steps=lengths.full_steps,
        prepare_steps=lengths.prepare_steps,
        candidates=case.budget.trials,
        expected_candidates=None if math.isinf(case.seconds) else int(lengths.candidates),
        finalists=case.final.finalists,
        seeds=case.final.seeds,
        proxy_share=lengths.proxy_share,
        views=lengths.views,
        label_stride=LABEL_STRIDE,
        reduction=REDUCTION,
        concurrency=hardware.workers,
        threads=hardware.threads,
        gpus_per_trial=hardware.gpus_per_trial,
        proxy_recipe=short(steps=lengths.rungs[-1], crop=crop, batch_size=case.batch_size),
        full_recipe=short(steps=lengths.full_steps, crop=crop, batch_size=case.batch_size),
        relaxations=relaxations,
        relax_steps=lengths.relax_steps,
        relax_share=lengths.relax_share,
        relax_recipe=_relax_recipe_for(case, crop, lengths.relax_steps) if relaxations else None,
    )


def search_crop(size: tuple[int, int], image_scale: float) -> tuple[int, int]:
    """Choose the crop of all runs of a search: the scaled image, rounded down to multiples of 16, at least 32."""
    height, width = scaled(size, image_scale)
    return max(32, height // 16 * 16), max(32, width // 16 * 16)


def _relax_recipe_for(case: Case, crop: tuple[int, int], steps: int) -> RelaxationRecipe:
    """Derive the recipe of a plan's relaxations, with the networks' augmentation."""
    augmentation = short(steps=1, crop=crop, batch_size=1).model_dump(include={"scale", "flip", "colour"})
    options = relaxation_options(case.options, case.device)
    return relax_recipe(
        case.device, crop, steps=steps, cost_weight=case.options.cost_weight, options=options, **augmentation
    )


def _count_relaxations(case: Case) -> int:
    if case.options.strategy != "gradient":
        return 0
    trials = case.budget.trials
    allowed = MOST_RELAXATIONS if trials is None else max(1, trials - case.references)
    # In a short time, two in turn would get only half of it each.
    fewest = FEWEST_RELAXATIONS if case.hours >= 1 else 1
    return case.options.relaxations or min(max(fewest, case.hardware.workers), MOST_RELAXATIONS, allowed)


def _lengths_of_trials(case: Case, relaxations: int) -> _Lengths:
    full_steps = case.options.full_steps or TRIALS_FULL_STEPS
    scale = case.options.image_scale or (1.0 if min(case.size) <= TRIALS_SMALL_SIDE_PIXELS else 0.5)
    case.room.require(scale)
    return _Lengths(
        image_scale=scale,
        views=case.room.views(scale, VIEWS),
        full_steps=full_steps,
        prepare_steps=None,
        rungs=_rungs(case, TRIALS_FIRST_RUNG_STEPS, full_steps),
        relax_steps=(case.options.relax_steps or TRIALS_RELAX_STEPS) if relaxations else 0,
        proxy_share=1.0,
        relax_share=1.0,
    )


def _fit(case: Case) -> _Lengths:
    """Fit all runs into the time, at the largest image scale that leaves enough steps and candidates.

    Scales for which memory or disk do not suffice are left out; raises `ValueError` if none is left. A plan is compared
    with that for one worker fewer, so that more workers never try fewer candidates: images of the next scale cost so
    much more that one worker more does not pay for them.
    """
    given = case.options.image_scale
    case.room.require(IMAGE_SCALES[-1] if given is None else given)
    lengths = _fit_more(case.with_workers(1), 0.0, 0.0)
    for workers in range(2, case.hardware.workers + 1):
        growth = (workers / (workers - 1)) ** GROWTH
        lengths = _fit_more(case.with_workers(workers), growth * lengths.timely, growth * lengths.candidates)
    return lengths


def _fit_more(case: Case, timely: float, total: float) -> _Lengths:
    """Fit all runs into the time, so that at least so many candidates are tried if that is possible."""
    if case.options.image_scale is not None:
        return _fit_at(case.options.image_scale, case, timely, total)
    whole = case.trains_whole and case.options.strategy == "trials"
    enough = max(FEWEST_PER_REFERENCE * case.references, total) if whole else 0
    for scale in (scale for scale in IMAGE_SCALES if case.room.lack(scale) is None):
        lengths = _fit_at(scale, case, timely, total)
        times, (fewest_steps, _) = case.room.times(scale, VIEWS), _first_steps(case)
        if (
            _affordable_full_steps(case, times) >= FEWEST_FULL_STEPS
            and _affordable_first_steps(case, times) >= fewest_steps
            and lengths.candidates >= enough
        ):
            break
    return lengths


def _fit_at(scale: float, case: Case, fewest_timely: float, fewest: float) -> _Lengths:
    relaxations, views = _count_relaxations(case), case.room.views(scale, VIEWS)
    times = case.room.times(scale, views)
    full_steps = case.options.full_steps or max(
        SHORTEST_STEPS, min(case.most_steps, int(_affordable_full_steps(case, times)))
    )
    prepare_steps = _prepare_steps(case, times, full_steps)
    timeline = _timeline(case, scale, times, full_steps, prepare_steps)
    trials_seconds = timeline.candidate_seconds / case.hardware.workers
    relax_steps, relax_share = 0, 1.0
    if relaxations:
        step_seconds = _relax_step_seconds(case, times, relaxations)
        affordable = int(max(SHORTEST_STEPS, min(case.most_steps, RELAX_SHARE * trials_seconds / step_seconds)))
        relax_steps = case.options.relax_steps or affordable
        trials_seconds = max(1.0, trials_seconds - relax_steps * step_seconds)
        relax_share = max(LEAST_RELAX_SHARE, round((timeline.final_from - trials_seconds) / case.seconds, 3))

    def counts(first_steps: int) -> tuple[float, int]:
        """Estimate how many candidates are tried in time for the final, and later."""
        rungs = _rungs(case, first_steps, full_steps)
        timely = _timely_candidates(case, times, rungs, trials_seconds)
        late = _late_candidates(case, times, rungs[0], timeline.late_seconds) if timely > case.references else 0
        return timely, late

    def suffices(first_steps: int) -> bool:
        timely, late = counts(first_steps)
        return timely >= max(FEWEST_CANDIDATES, fewest_timely) and timely + late >= fewest

    shortest, longest = _first_steps(case)
    longest = max(shortest, min(longest, int(_affordable_first_steps(case, times))))
    # Beyond these, `_rungs` leaves out another rung, and candidates take less time again.
    jumps = [full_steps // REDUCTION**rung for rung in range(case.rungs)] if case.trains_whole else []
    first_steps = longest_that(suffices, shortest, longest, jumps)
    timely, late = counts(first_steps)
    return _Lengths(
        image_scale=scale,
        views=views,
        full_steps=full_steps,
        prepare_steps=prepare_steps,
        rungs=_rungs(case, first_steps, full_steps),
        relax_steps=relax_steps,
        proxy_share=max(LEAST_PROXY_SHARE, round(timeline.final_from / case.seconds, 3)),
        relax_share=relax_share,
        timely=timely,
        late=late,
    )


def _first_steps(case: Case) -> tuple[int, int]:
    """Return the fewest and the most steps of the first rung, however short the time."""
    if case.options.rungs:
        return case.options.rungs[0], case.options.rungs[0]
    return WHOLE_FIRST_RUNG_STEPS if case.trains_whole else FIRST_RUNG_STEPS


def _affordable_first_steps(case: Case, times: JobTimes) -> float:
    share = MOST_TRIAL_SHARE if case.hours < 1 else MOST_TRIAL_SHARE_OF_HOURS
    seconds = share * case.seconds / case.room.contention - times.trial_seconds(0)
    return seconds / times.trial_step_seconds


def _affordable_full_steps(case: Case, times: JobTimes) -> float:
    share = min(FULL_SHARE / case.final.rounds, MOST_RUN_SHARE / case.room.contention)
    return (share * case.usable_seconds - times.scoring_seconds) / times.full_step_seconds


def _prepare_steps(case: Case, times: JobTimes, full_steps: int) -> int | None:
    """Choose for how long the first reference is trained before its features are stored; `None`: like a finalist.

    While it is, workers that train no other reference's seeds wait. Where that is long, for lack of
    `FEWEST_PREPARE_STEPS`, they train fresh seeds (`Final`).
    """
    waiting = case.hardware.workers - 1 - case.final_references * case.final.seeds
    if case.trains_whole or waiting <= 0:
        return None
    share = MOST_WAITING_SHARE if case.hours < 1 else MOST_WAITING_SHARE_OF_HOURS
    seconds = share * case.seconds * case.hardware.workers / waiting
    steps = int((seconds / case.room.contention - times.run_seconds(0)) / times.full_step_seconds)
    return steps if FEWEST_PREPARE_STEPS <= steps < full_steps else None


def _timeline(case: Case, scale: float, times: JobTimes, full_steps: int, prepare_steps: int | None) -> Timeline:
    # Each worker reads all images once; the rest of what memory does not keep is in the steps.
    batches = (case.train_images + case.val_images) / case.batch_size
    contention = case.room.contention
    return Timeline(
        total_seconds=case.seconds,
        workers=case.hardware.workers,
        starting_seconds=STARTING_SECONDS + batches * case.speed.at(scale).reading_seconds,
        run_seconds=contention * times.run_seconds(full_steps),
        references=case.final_references,
        finalists=case.final.finalists,
        seeds=case.final.seeds,
        needs_features=not case.trains_whole,
        preparing_seconds=contention * times.run_seconds(prepare_steps or full_steps),
        # Of many references, the first is hardly among the best.
        apart=prepare_steps is not None or case.references > FINAL_REFERENCES,
        storing_seconds=contention * times.storing_seconds / case.hardware.workers_of_a_machine,
    )


def _relax_step_seconds(case: Case, times: JobTimes, relaxations: int) -> float:
    """Estimate a step of all relaxations, side by side; a step without an architecture update takes half as long."""
    mean_seconds = times.relax_step_seconds * (1 - ARCHITECTURE_START / 2)
    return case.room.contention * math.ceil(relaxations / case.hardware.workers) * mean_seconds


def _rungs(case: Case, first_steps: int, full_steps: int) -> tuple[int, ...]:
    """Choose the rungs, of whole networks none longer than the final's runs, of which they are the beginnings."""
    rungs = [first_steps * REDUCTION**rung for rung in range(case.rungs)]
    if case.trains_whole:
        rungs = [min(first_steps, full_steps), *(steps for steps in rungs[1:] if steps <= full_steps)]
    return case.options.rungs or tuple(rungs)


def _timely_candidates(case: Case, times: JobTimes, rungs: Sequence[int], trials_seconds: float) -> float:
    """Estimate how many candidates can be tried, with the references, of which few are all trained to the top rung."""
    settled = case.references if case.references <= FINAL_REFERENCES else 0
    for_references = settled * times.trial_seconds(rungs[-1], len(rungs))
    for_others = trials_seconds * case.hardware.workers / case.room.contention - for_references
    return settled + max(0.0, for_others / times.trial_seconds(*mean_work(rungs, REDUCTION)))


def _late_candidates(case: Case, times: JobTimes, first_steps: int, late_seconds: float) -> int:
    """Estimate how many reach the first rung where a worker's time is too short for an end-to-end run."""
    return case.hardware.workers * int(late_seconds / case.room.contention / times.trial_seconds(first_steps))
