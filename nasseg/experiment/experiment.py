"""A whole search in its run folder, as data flows: plan, jobs, record, the best network."""

from __future__ import annotations

import shutil
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from nasseg import plugins
from nasseg.cost import Latency, measure_latency
from nasseg.cost.latency import device_name
from nasseg.data import open_dataset
from nasseg.errors import one_line
from nasseg.experiment.record import Record
from nasseg.experiment.trust import Trust, measure_trust
from nasseg.graph import Architecture, save, write_atomically
from nasseg.jobs.pricing import check_costs
from nasseg.jobs.runners import in_process
from nasseg.jobs.speed import measure_speed
from nasseg.jobs.worker import LATENCY_TABLE, SearchWorker
from nasseg.pareto import non_dominated
from nasseg.planning.budget import Budget
from nasseg.planning.config import SearchConfig, check_sampler, cores
from nasseg.planning.job import Candidate, Costs, JobResult, Outcome, Trial
from nasseg.planning.objective import Objective
from nasseg.planning.plan import Dials, Hardware, derive_plan
from nasseg.planning.planner import Planner, PlannerSettings
from nasseg.planning.samplers import SAMPLERS
from nasseg.run_folder import CONFIG_FILE, check_new, new_folder
from nasseg.space import Choice
from nasseg.space.relaxation import Relaxable
from nasseg.train.fit import seeded_network
from nasseg.train.model import MODEL_FILE, load_model
from nasseg.train.weights import load_pretrained

ELAPSED = "elapsed seconds"
BEST_AT = "best at "
LATENCY = "latency "
REHEARSAL_SCALE = 0.5
"""Images are this share of their size while the speed is measured."""


def plan_search(config: SearchConfig, given: Mapping[str, Any], concurrency: int | None = None) -> SearchConfig:
    """Check what a search was asked for, measure the machine's speed, and fill in the plan.

    `given` are the `Dials` that the user set. Raises `ValueError` for anything that could not work later: data,
    space, weights, sampler, budget.
    """
    check_sampler(config.sampler)
    dials = Dials.model_validate(given)
    device = config.torch_device
    space = plugins.space(config.space, named_by_user=config.space)
    by_gradient = config.strategy == "gradient"
    if by_gradient and not isinstance(space, Relaxable):
        able = [
            name
            for name in plugins.names(plugins.SPACES)
            if hasattr(plugins.loaded(plugins.SPACES, name), "relaxation")
        ]
        raise ValueError(f"space {config.space!r} cannot be searched by gradient; those that can: {', '.join(able)}")
    if not by_gradient and dials.of_gradient():
        raise ValueError(f"{next(iter(dials.of_gradient()))} is for strategy gradient; set that too, or leave it out")
    dataset = open_dataset(config.data)
    train, val = dataset.split(config.train_split), dataset.split(config.val_split)
    hardware = Hardware.of(device, cores(), concurrency, dials.gpus_per_trial)
    config.budget.wall_seconds(hardware.cores, hardware.gpus)
    limits = config.limits
    train.check()
    val.check()
    classes = len(dataset.classes)
    references = space.references()
    if config.weights is not None:
        first = space.architecture(next(iter(references.values())), classes)
        load_pretrained(seeded_network(first, 0), config.weights)
    height, width = val[0].mask.shape
    check_costs(config.space, space, classes, (height, width), limits, config.latency)
    options = dials.relaxation_options(device) if by_gradient else None
    speed = measure_speed(space, train, REHEARSAL_SCALE, device, hardware.threads, options)
    plan = derive_plan(
        config.budget, speed, hardware, size=(height, width),
        train_images=len(train), val_images=len(val), references=len(references),
        strategy=config.strategy, cost_weight=config.cost_weight, **given,
    )  # fmt: skip
    return config.model_copy(update={"plan": plan})


def begin(out: Path, config: SearchConfig, given: Mapping[str, Any], concurrency: int | None = None) -> Search:
    """Plan a search, as `plan_search` does, and make its run folder `out`.

    Raises `ValueError` for anything that could not work later, and then leaves nothing behind.
    """
    check_new(out)
    planned = plan_search(config, given, concurrency)
    with new_folder(out):
        return Search(planned, out)


def begin_with(out: Path, *, budget: str, concurrency: int | None, **options: Any) -> Search:
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


class Search:
    """A planned search in its run folder, new or resumed; `run` carries it out and other properties are for reports.

    A `Search` of a folder that holds one changes nothing there until `run` is called. The user has named the space of
    its config, which `SearchConfig.load` sees to.
    """

    def __init__(self, config: SearchConfig, folder: Path) -> None:
        if config.plan is None:
            raise ValueError("the config has no plan; make one with plan_search")
        self.config, self.folder, self.plan = config, folder, config.plan
        if not (folder / CONFIG_FILE).exists():
            config.save(folder)
            if config.latency is not None:
                shutil.copyfile(config.latency, folder / LATENCY_TABLE)
        self.dataset = open_dataset(config.data)
        self.classes = len(self.dataset.classes)
        self.space = plugins.space(config.space, named_by_user=config.space)
        self.helper = SearchWorker(config, folder)
        self.size = self.helper.provenance.data.size
        first = next(iter(self.space.references().values()))
        self.pricing = self.helper.pricing
        costs = self.pricing.costs(self.space.architecture(first, self.classes))
        self.objective = Objective(
            aim=config.objective,
            unit="MAdds" if self.pricing.table is None else "ms",
            weight=config.cost_weight,
            reference_cost=config.limits.latency_ms or costs.latency_ms or costs.madds,
        )
        top = self.plan.rungs[-1]
        if config.storage is None:
            self.record = Record.open_journal(folder / "study.journal", self.space, top, self.objective)
        else:
            self.record = Record.open_url(config.storage, folder.name, self.space, top, self.objective)
        self.planner = Planner(
            self.space,
            SAMPLERS[config.sampler](self.space),
            PlannerSettings(
                seed=config.seed,
                total_seconds=self.total_seconds,
                **self.plan.model_dump(include=set(PlannerSettings.model_fields)),
            ),
            describe=self._describe,
            values=self.objective.values,
            history=self.record.load(),
            relaxed=self.record.relaxations(),
        )
        self._elapsed_before = float(self.record.study.user_attrs.get(ELAPSED, 0.0))
        self._start = time.monotonic()
        self.latencies = {
            name.removeprefix(LATENCY): Latency.model_validate(value)
            for name, value in self.record.study.user_attrs.items()
            if name.startswith(LATENCY)
        }
        """As far as they were measured, by key."""
        self.history: list[tuple[float, float]] = sorted(
            (float(name.removeprefix(BEST_AT)), value)
            for name, value in self.record.study.user_attrs.items()
            if name.startswith(BEST_AT)
        )
        """The best candidate's score by the seconds spent when it became known."""

    # --- running ---------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event, on_update: Callable[[Search], object]) -> None:
        """Run jobs until the planner has no more or `stop` is set; `on_update` is called after every change.

        Whenever this ends, all results that came in are on disk, and a new `Search` of the folder goes on from them.
        """

        def on_start(job: Any) -> None:
            self.record.reject(self.planner.rejected)
            self.record.start(job)
            on_update(self)

        def on_result(result: JobResult) -> None:
            self.record.add(result)
            self.record.study.set_user_attr(ELAPSED, self.elapsed_seconds)
            if self.best is not None and (not self.history or self.history[-1][1] != self.best_score):
                self.history.append((self.elapsed_seconds, self.best_score))
                self.record.study.set_user_attr(f"{BEST_AT}{self.elapsed_seconds:.3f}", self.best_score)
            self.write_best()
            on_update(self)

        for_workers = self.config.model_copy(update={"storage": None})  # they keep no record, and need no password
        make_worker = partial(SearchWorker, for_workers, self.folder.resolve())
        observers: dict[str, Any] = {
            "on_start": on_start,
            "on_result": on_result,
            "spent": lambda: self.spent,
            "stop": stop,
        }
        if self.config.runner == "in-process":
            in_process.run_jobs(self.planner, make_worker, **observers)
        else:
            from nasseg.jobs.runners import ray_tune

            options = ray_tune.RayOptions(
                concurrency=self.plan.concurrency,
                cpus_per_job=self.plan.threads,
                gpus_per_job=self.plan.gpus_per_trial,
                address=self.config.ray_address,
            )
            ray_tune.run_jobs(self.planner, make_worker, **observers, options=options)
        if not stop.is_set():
            self.record.close()
            self._finish()
            on_update(self)

    @property
    def elapsed_seconds(self) -> float:
        """Wall clock of this search, what was spent before a resumption included."""
        return self._elapsed_before + time.monotonic() - self._start

    @property
    def total_seconds(self) -> float:
        """Wall clock that the budget allows; infinite for a budget of trials."""
        plan = self.plan
        gpus = max(1, round(plan.gpus_per_trial * plan.concurrency)) if plan.gpus_per_trial else 0
        return self.config.budget.wall_seconds(min(cores(), plan.concurrency * plan.threads), gpus)

    @property
    def spent(self) -> float:
        """Share of the budget's time that is spent; 0 for a budget of trials, which the planner counts itself."""
        return self.elapsed_seconds / self.total_seconds

    # --- results ---------------------------------------------------------------------------------------------------

    def score(self, outcome: Outcome) -> float:
        """mIoU weighed against cost."""
        if outcome.miou is None:
            raise ValueError(f"{outcome.key} has no score")
        return self.objective.score(outcome.miou, self.objective.cost(outcome))

    def _describe(self, choice: Choice) -> Candidate:
        architecture = self.space.architecture(choice, self.classes)
        return Candidate(
            key=architecture.key,
            choice=choice.model_dump(mode="json"),
            constraints=self.pricing.constraints(architecture),
        )

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All candidates that were handed out, in their order."""
        return tuple(trial for trial in self.planner.trials if trial.proxy or trial.full)

    @cached_property
    def reference_keys(self) -> dict[str, str]:
        """The keys of the handcrafted references by their names."""
        return {trial.candidate.label: trial.candidate.key for trial in self.planner.trials if trial.candidate.label}

    def trial(self, key: str) -> Trial:
        """The candidate of that key."""
        return next(trial for trial in self.planner.trials if trial.candidate.key == key)

    @property
    def ranked(self) -> list[Trial]:
        """Candidates with a score that keep all limits, best first; see `merit`."""
        scored = [
            (merit, trial)
            for trial in self.trials
            if trial.candidate.feasible and (merit := self.merit(trial)) is not None
        ]
        return [trial for _, trial in sorted(scored, key=lambda pair: pair[0], reverse=True)]

    def merit(self, trial: Trial) -> tuple[int, int, float] | None:
        """What candidates are ranked by: trained end to end or not, the step of the highest rung, then the score.

        The score is the mean over the seeds end to end, or that at the rung. `None` for a candidate without one. A
        search that ends with fewer seeds of its references than of its finalists still compares them by their means.
        """
        full = [self.score(outcome) for outcome in trial.full.values() if outcome.status == "ok"]
        if full:
            return 1, 0, statistics.mean(full)
        proxy = {step: outcome for step, outcome in trial.proxy.items() if outcome.status == "ok"}
        return (0, max(proxy), self.score(proxy[max(proxy)])) if proxy else None

    @property
    def best(self) -> Trial | None:
        """The best candidate so far."""
        ranked = self.ranked
        return ranked[0] if ranked else None

    @property
    def best_score(self) -> float:
        """The best candidate's score: the mean end to end, else that of its highest rung."""
        best = self.best
        merit = self.merit(best) if best is not None else None
        if merit is None:
            raise ValueError("no candidate has a score yet")
        return merit[-1]

    @property
    def trust(self) -> Trust:
        """How well the proxy ranks."""
        return measure_trust(self.trials, self.plan.rungs)

    @property
    def front(self) -> list[Trial]:
        """The candidates within the limits that no other beats in both mIoU and cost, cheapest first.

        Only those are compared that were trained as far as the best, so that their scores have one measure. Their cost
        is their latency as measured, once it was measured of all of them on the latency table's device.
        """
        tried = self._trained_furthest
        costs = {trial.candidate.key: self.objective.cost(costs_of(trial)) for trial in tried}
        if self._on_the_tables_device and set(costs) <= set(self.latencies):
            costs = {key: self.latencies[key].median_ms for key in costs}
        points = [(costs[trial.candidate.key], miou(trial)) for trial in tried]
        return [tried[index] for index in non_dominated(points)]

    @property
    def _trained_furthest(self) -> list[Trial]:
        """Those that keep the limits and were trained as far as the best."""
        scored = [(merit[:2], trial) for trial in self.ranked if (merit := self.merit(trial)) is not None]
        return [trial for trained, trial in scored if trained == scored[0][0]]

    @property
    def _on_the_tables_device(self) -> bool:
        table = self.pricing.table
        return table is not None and table.conditions.device == device_name(self.config.torch_device)

    def architecture(self, trial: Trial) -> Architecture:
        """The candidate's network, with where it comes from and what it scored."""
        scores = {f"proxy, step {step}": o.miou for step, o in trial.proxy.items() if o.miou is not None}
        scores |= {f"end to end, seed {seed}": o.miou for seed, o in trial.full.items() if o.miou is not None}
        provenance = self.helper.provenance.model_copy(
            update={"miou": scores, "latency": self.latencies.get(trial.candidate.key)}
        )
        return provenance.on(self.helper.architecture(trial.candidate))

    def write_best(self) -> None:
        """Rewrite `best.json` and `pareto/`."""
        if self.best is None:
            return
        save(self.architecture(self.best), self.folder / "best.json")
        folder = self.folder / "pareto"
        folder.mkdir(exist_ok=True)
        current = {folder / f"{trial.candidate.label or trial.candidate.key}.json": trial for trial in self.front}
        for path, trial in current.items():
            save(self.architecture(trial), path)
        for stale in set(folder.glob("*.json")) - set(current):
            stale.unlink()

    def _finish(self) -> None:
        """Measure the latency of the best, the references and the front, now that the device is idle.

        On the latency table's device, that of all that were trained as far as the best, as the table was measured.
        """
        if self.best is None:
            return
        threads, under = cores(), {}
        if self._on_the_tables_device and self.pricing.table is not None:
            conditions = self.pricing.table.conditions
            threads, under = conditions.threads, conditions.model_dump(include={"batch", "dtype", "backend"})
        compared = self._trained_furthest if under else self.front
        shown = [self.best.candidate.key, *self.reference_keys.values(), *(t.candidate.key for t in compared)]
        if not set(shown) <= set(self.latencies):
            networks = {key: self.architecture(self.trial(key)).inference().network() for key in dict.fromkeys(shown)}
            torch.set_num_threads(threads)
            self.latencies |= measure_latency(networks, self.size, self.config.torch_device, **under)
            for key, latency in self.latencies.items():
                self.record.study.set_user_attr(f"{LATENCY}{key}", latency.model_dump(mode="json"))
        self.write_best()
        seeds = [seed for seed, outcome in self.best.full.items() if outcome.status == "ok"]
        if seeds:
            trained = self.helper.model_file(self.best.candidate.key, seeds[0])
            write_atomically(self.folder / MODEL_FILE, trained.read_bytes())

    def best_network(self) -> Any:
        """The best candidate's trained network, or `None` where none was trained end to end."""
        for trial in self.ranked:
            for seed in trial.full:
                path = self.helper.model_file(trial.candidate.key, seed)
                if path.is_file():
                    return load_model(path)[0]
        return None


def costs_of(trial: Trial) -> Costs:
    """The costs of the candidate's network; nothing where no training told them."""
    outcomes = [*trial.proxy.values(), *trial.full.values()]
    return next((outcome for outcome in outcomes if outcome.madds is not None), Costs())


def miou(trial: Trial) -> float:
    """Mean over seeds end to end, else of the highest rung; 0 where there is none."""
    full = [outcome.miou for outcome in trial.full.values() if outcome.miou is not None]
    if full:
        return statistics.mean(full)
    proxy = {step: outcome.miou for step, outcome in trial.proxy.items() if outcome.miou is not None}
    return proxy[max(proxy)] if proxy else 0.0
