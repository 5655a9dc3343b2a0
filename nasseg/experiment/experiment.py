"""A search in its run folder: its jobs are run, their results recorded, the best networks written."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from typing_extensions import Self

from nasseg.allocator import without_garbage_collection
from nasseg.cost import measure_latency
from nasseg.cost.latency import device_name
from nasseg.experiment.best_files import BestFiles
from nasseg.experiment.record import Record
from nasseg.experiment.results import Results
from nasseg.experiment.stopwatch import Stopwatch
from nasseg.graph import Architecture, write_atomically
from nasseg.jobs.context import Context
from nasseg.jobs.remote import open_worker
from nasseg.jobs.runners import in_process
from nasseg.jobs.runners.dispatch import Delivery
from nasseg.jobs.worker import Worker
from nasseg.network import Network
from nasseg.planning.candidates import Share, Trial
from nasseg.planning.config import SearchConfig
from nasseg.planning.job import Job, JobResult
from nasseg.planning.machine import cores
from nasseg.planning.objective import Objective
from nasseg.planning.options import SearchOptions
from nasseg.planning.planner import Planner
from nasseg.planning.samplers import find_sampler
from nasseg.run_folder import MODEL_FILE, STUDY_FILE, proxy_checkpoint, require_disk, trained_model
from nasseg.train.model import load_model

NEWS_SECONDS = 5.0
"""Between two looks at what other searches of the study have done, at least."""
LEAST_FREE_BYTES = 256 << 20
"""Of the disk, before a job starts: what it finds must be saved."""
MOST_WAITING = 16
"""Candidates of a rung whose checkpoints are kept in case they are promoted; others would begin anew."""


class Experiment:
    """A planned search in its run folder, new or resumed: `run` runs it, `results` are those so far.

    Opening an `Experiment` in an existing folder changes nothing there until `run` is called.
    """

    @without_garbage_collection()
    def __init__(self, config: SearchConfig, context: Context) -> None:
        self.config, self.context, self.problem = config, context, context.problem
        self.plan, self.folder = context.plan, context.folder
        self._stopwatch = Stopwatch(self.folder)
        self.record = self._open_record()
        self.planner = Planner(
            self.problem.space,
            find_sampler(config.sampler)(self.problem.region),
            self.plan,
            seed=config.seed,
            total_seconds=self.total_seconds,
            scales=self.problem.fitting.scales,
            describe=self.problem.candidate,
            values=self.objective.values,
            score=self.objective.score_of,
            history=self.record.load(),
            relaxed=self.record.relaxations(),
            taken=self.record.taken,
            times=self.config.times,
            prepared=context.prepared_model.is_file(),
            share=Share(self.record.place.claim, self.record.place.number),
        )
        self.latencies = self.record.latencies
        """Measured latencies by key."""
        self.history = self.record.history
        """The scores of the best candidates, each with the seconds spent until it was found."""
        self._rejected = 0
        """Rejected proposals that are on record."""
        self._next_news = time.monotonic() + NEWS_SECONDS
        self._best_files = BestFiles(self.folder, self.architecture)
        self._checkpoints = self._needed_checkpoints()
        self.results = self._results()

    @classmethod
    def open(
        cls, folder: Path, *, space: str | None = None, storage: str | None = None, asked: SearchOptions | None = None
    ) -> Self:
        """Open the search in a run folder; raises `ValueError` if there is none, and as `SearchConfig.load` does.

        `space` and `storage` come from the user, as a file alone is not to be trusted. With `asked`, the search is to
        go on with these options (`SearchConfig.changed`). Then `ValueError` is also raised if nothing would be left of
        a budget that was changed, or if the data or the weights have changed.
        """
        config = SearchConfig.load(folder, space=space, storage=storage)
        if asked is None:
            return cls(config, Context.open(config, folder))
        saved, config = config, config.changed(asked)
        context = Context.open(config, folder)
        context.require_unchanged()
        search = cls(config, context)
        tried, elapsed_seconds, trials = search.planner.tried, search.elapsed_seconds, config.budget.trials
        used_up = tried >= trials if trials is not None else search.spent >= 1
        if config.budget != saved.budget and used_up:
            spent = f"{elapsed_seconds / 60:.3g} min" if trials is None else f"{tried} trials"
            raise ValueError(f"budget {config.budget} includes what was spent, {spent}; give more to go on")
        return search

    # --- carrying it out -------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event, on_update: Callable[[Experiment], object]) -> None:
        """Run jobs until the planner has no more or `stop` is set; `on_update` is called after every change.

        However this ends, all results so far are on disk, and a new `Experiment` of the folder continues from them.
        Raises `RuntimeError` if the search leads nowhere (`Delivery`), or what runs its jobs has ended.
        """
        self.context.stop = stop

        def on_start(job: Job) -> None:
            require_disk(self.folder, LEAST_FREE_BYTES)
            rejected = self.planner.rejected
            self.record.reject(trial.candidate for trial in rejected[self._rejected :])
            self._rejected = len(rejected)
            self.record.start(job)
            on_update(self)

        def on_result(result: JobResult) -> None:
            self._take_in(result)
            if time.monotonic() >= self._next_news:
                self._learn()
            on_update(self)

        delivery = Delivery(self.planner, on_start, on_result, lambda: self.spent)
        with self._stopwatch.running():
            self._run_jobs(delivery, stop)
        if not stop.is_set():
            delivery.end()
            for key, step in self._checkpoints:
                proxy_checkpoint(self.folder, key, step).unlink(missing_ok=True)
            self.record.close()
            self._learn()
            self._finish()
            on_update(self)

    def _run_jobs(self, delivery: Delivery, stop: threading.Event) -> None:
        if self.config.runner == "in-process":
            in_process.run_jobs(delivery, partial(Worker, self.context), stop=stop)
        else:
            from nasseg.jobs.runners import ray_actors

            # They keep no record, so need no password, and each sees just the GPU that Ray gives it.
            device = self.problem.device
            for_workers = self.config.model_copy(update={"storage": None, "device": device.type})
            folder, joins = self.folder.resolve(), self.config.ray_address is not None
            ray_actors.run_jobs(
                delivery,
                partial(open_worker, for_workers) if joins else partial(Worker.open, for_workers, folder),
                stop=stop,
                run_folder=folder if joins else None,
                options=ray_actors.RayOptions(
                    concurrency=self.plan.concurrency,
                    cpus_per_job=self.plan.threads,
                    gpus_per_job=self.plan.gpus_per_trial,
                    gpu=device.index,
                    address=self.config.ray_address,
                    grows=self.config.concurrency is None and self.config.budget.unit not in ("gpu-h", "cpu-h"),
                ),
            )

    @property
    def elapsed_seconds(self) -> float:
        """Wall clock of this search, including the time before a resumption."""
        return self._stopwatch.seconds

    @property
    def total_seconds(self) -> float:
        """Wall clock that the budget allows; infinite for a budget of trials."""
        plan = self.plan
        gpus = max(1, round(plan.gpus_per_trial * plan.concurrency)) if plan.gpus_per_trial else 0
        threads = plan.concurrency * plan.threads
        held = threads if self.config.ray_address else min(cores(), threads)
        return self.config.budget.wall_seconds(held, gpus)

    @property
    def rung_runs(self) -> str:
        """The name of a training up to a rung: `proxy` on stored features, `short run` of a whole network on images."""
        return "proxy" if self.problem.space.shared_stage else "short run"

    @property
    def spent(self) -> float:
        """Share of the budget's time that is spent; 0 for a budget of trials, which the planner counts itself."""
        return self.elapsed_seconds / self.total_seconds

    def _take_in(self, result: JobResult) -> None:
        elapsed = self.elapsed_seconds
        if result.job.task == "prepare" and not self.plan.compares(result.job):
            self.record.note_taken(self.planner.clock.taken)
            return
        self.record.add(result, self.planner.clock.taken)
        self._remove_checkpoints(result.job)
        for candidate in result.job.candidates:
            self.results.take_in(self.planner.trial(candidate.key))
        self._note_best(elapsed)

    def _learn(self) -> None:
        """Take in what other searches of the study have done."""
        for trial in self.planner.learn(self.record.news()):
            self.results.take_in(trial)
        self._note_best(self.elapsed_seconds)
        self._next_news = time.monotonic() + NEWS_SECONDS

    def _note_best(self, elapsed: float) -> None:
        score = self.results.best_score
        if score is not None and (not self.history or self.history[-1][1] != score):
            self.history.append((elapsed, score))
            self.record.note_best(elapsed, score)
        self._best_files.write(self.results)

    def _needed_checkpoints(self) -> set[tuple[str, int]]:
        # Begun anew, a trial that inherits would start from what it had itself trained.
        return self.planner.resumable(None if self.problem.inherits else MOST_WAITING)

    def _remove_checkpoints(self, finished: Job) -> None:
        """Remove the checkpoints of trials that nothing goes on from."""
        needed = self._needed_checkpoints()
        written = {(candidate.key, finished.stop_step) for candidate in finished.candidates}
        for key, step in (self._checkpoints | written) - needed:
            proxy_checkpoint(self.folder, key, step).unlink(missing_ok=True)
        self._checkpoints = needed

    # --- what it found ---------------------------------------------------------------------------------------------

    @property
    def objective(self) -> Objective:
        """The search's objective."""
        return self.problem.objective

    def architecture(self, trial: Trial) -> Architecture:
        """Build the network of a candidate, with its origin and scores."""
        scores = {f"{self.rung_runs}, step {step}": o.miou for step, o in trial.proxy.items() if o.miou is not None}
        scores |= {f"end to end, seed {seed}": o.miou for seed, o in trial.full.items() if o.miou is not None}
        provenance = self.context.provenance.model_copy(
            update={"miou": scores, "latency": self.latencies.get(trial.key)}
        )
        return provenance.on(self.problem.architecture(trial.choice))

    def best_network(self) -> Network | None:
        """Load the trained network of the best candidate; `None` if it was not trained end to end by this search."""
        best = self.results.best
        model = None if best is None else self.model_of(best)
        return None if model is None else load_model(model)[0]

    def model_of(self, trial: Trial) -> Path | None:
        """Locate a candidate's model, of its first seed that this search has trained end to end."""
        found = (trained_model(self.folder, trial.key, seed) for seed in sorted(trial.full))
        return next(filter(Path.is_file, found), None)

    def _results(self) -> Results:
        return Results(self.planner.trials, self.objective, self.plan.rungs, self.latencies, self._on_the_tables_device)

    @property
    def _on_the_tables_device(self) -> bool:
        table = self.problem.pricing.table
        return table is not None and table.conditions.device == device_name(self.problem.device)

    def _open_record(self) -> Record:
        space, top, storage = self.problem.space, self.plan.rungs[-1], self.config.storage
        if storage is None:
            return Record.open_journal(self.folder / STUDY_FILE, space, top, self.objective)
        study = self.config.study or self.folder.name
        return Record.open_url(storage, study, space, top, self.objective, self.config.search_id)

    def _finish(self) -> None:
        """Measure latencies now that the device is idle, and save the best candidate's model.

        On the latency table's device, all candidates trained as far as the best are measured, as the table was; on any
        other device the best, the references and the front.
        """
        results, best = self.results, self.results.best
        if best is None:
            return
        threads, under, compared = cores(), {}, results.front
        if self._on_the_tables_device and self.problem.pricing.table is not None:
            conditions = self.problem.pricing.table.conditions
            threads, under = conditions.threads, conditions.model_dump(include={"batch", "dtype", "backend"})
            compared = results.trained_furthest
        shown = {trial.key: trial for trial in (best, *results.references.values(), *compared)}
        if not set(shown) <= set(self.latencies):
            networks = {key: self.architecture(trial).inference().network() for key, trial in shown.items()}
            torch.set_num_threads(threads)
            measured = measure_latency(networks, self.problem.size, self.problem.device, **under)
            self.latencies |= measured
            self.record.add_latencies(measured)
            self.results = self._results()
        self._best_files.write(self.results)
        if best.full:
            model = self.model_of(best)
            if model is None:
                (self.folder / MODEL_FILE).unlink(missing_ok=True)
            else:
                write_atomically(self.folder / MODEL_FILE, model.read_bytes())
