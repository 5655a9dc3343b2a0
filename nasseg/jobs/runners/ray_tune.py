"""A runner with Ray Tune, on one machine or a cluster, with one Tune trial per job."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray import cloudpickle, tune
from ray._private import ray_constants
from ray.tune.search import Searcher

from nasseg.jobs.runners.dispatch import Delivery, StopEvent, run_guarded
from nasseg.planning.job import Job, JobResult, Worker

_RETRIES_AFTER_DEATH = 2
_OBJECT_STORE_BYTES = 80 * 2**20
_OPTIONS_OF_TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


class RayOptions(BaseModel):
    """The number of jobs at once, their resources, and the cluster to join (`None` starts one on this machine)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int = Field(default=1, ge=1)
    cpus_per_job: int = Field(default=1, ge=1)
    gpus_per_job: float = Field(default=0.0, ge=0)
    address: str | None = None


def run_jobs(delivery: Delivery, make_worker: Callable[[], Worker], *, stop: StopEvent, options: RayOptions) -> None:
    """Run the planner's jobs until there are no more or `stop` is set; running jobs are then abandoned.

    `make_worker` is sent to the workers' processes; everything else is called in this process and thread. A job whose
    process dies is retried in another one. Tune's own record of the experiment is discarded.
    """
    courier = _Courier(delivery, stop, options.concurrency)
    supervisor = _Supervisor(courier)
    resources = tune.PlacementGroupFactory([{"CPU": options.cpus_per_job, "GPU": options.gpus_per_job}])
    trainable = tune.with_resources(tune.with_parameters(_JobTrainable, make_worker=make_worker), resources)
    with _ray(options), tempfile.TemporaryDirectory(prefix="nasseg-tune-") as folder:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=courier,
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_short_name,
                trial_dirname_creator=_short_name,
            ),
            run_config=tune.RunConfig(
                name="jobs",
                storage_path=folder,
                verbose=0,
                stop=_Stopper(supervisor),
                callbacks=[supervisor],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=_RETRIES_AFTER_DEATH),
            ),
        )
        tuner.fit()
    if courier.error is not None:
        raise courier.error


class _JobTrainable(tune.Trainable):  # type: ignore[misc]
    """A job, run in one step. Tune keeps the process for the next job, and with it the worker."""

    def setup(self, config: dict[str, Any], make_worker: Callable[[], Worker]) -> None:
        self._make_worker = make_worker
        self._worker: Worker | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._job = Job.model_validate_json(new_config["job"])
        return True

    def step(self) -> dict[str, Any]:
        try:
            if self._worker is None:
                self._worker = self._make_worker()
            return {"result": run_guarded(self._worker, self._job).model_dump_json(), "done": True}
        except Exception as error:
            return {"error": _pickled(error), "done": True}


class _Courier(Searcher):  # type: ignore[misc]
    """The carrier of jobs from the planner and results to it."""

    def __init__(self, delivery: Delivery, stop: StopEvent, concurrency: int) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self._delivery, self._stop, self._concurrency = delivery, stop, concurrency
        self._jobs: dict[str, Job] = {}

    @property
    def stopped(self) -> bool:
        return self.error is not None or self._stop.is_set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.stopped:
            return str(Searcher.FINISHED)
        if len(self._jobs) >= self._concurrency:
            return None
        with self._keep_error():
            job = self._delivery.next_job()
            if job is not None:
                self._jobs[trial_id] = job
                return {"job": job.model_dump_json()}
        return str(Searcher.FINISHED) if self.stopped or self._delivery.planner.done else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Deliver a result. Without one the trial was stopped, or its process died and `on_death` is called."""
        if self.stopped or result is None:
            return
        del self._jobs[trial_id]
        with self._keep_error():
            if "error" in result:
                raise pickle.loads(result["error"])
            self._delivery.deliver(JobResult.model_validate_json(result["result"]))

    def on_death(self, trial_id: str, reason: str) -> None:
        """Record that a job's process died on every attempt."""
        job = self._jobs.pop(trial_id)
        with self._keep_error():
            self._delivery.deliver(JobResult.failed(job, f"its process died: {reason}"))

    @contextmanager
    def _keep_error(self) -> Iterator[None]:
        """Keep an exception until Tune has ended, as Tune would log it and go on."""
        try:
            yield
        except Exception as error:
            self.error = error

    def __getstate__(self) -> dict[str, Any]:
        """Save nothing: Tune saves its experiment, but the study is the record."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Save nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class _Supervisor(tune.Callback):  # type: ignore[misc]
    """A callback that tells the courier why a process died, and kills the processes of a stopped run.

    A searcher is only told that there was an error, and Tune itself would wait for the running jobs.
    """

    def __init__(self, courier: _Courier) -> None:
        self.killed = False
        self._courier = courier

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if not self._courier.stopped:
            self._courier.on_death(trial.trial_id, _first_sentence(trial.error_file))

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._courier.stopped and not self.killed:
            self.killed = True
            for trial in trials:
                if trial.temporary_state.ray_actor is not None:
                    ray.kill(trial.temporary_state.ray_actor)


class _Stopper(tune.Stopper):  # type: ignore[misc]
    """The end of the experiment, once its processes are killed."""

    def __init__(self, supervisor: _Supervisor) -> None:
        self._supervisor = supervisor

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._supervisor.killed


def _first_sentence(error_file: str) -> str:
    """Read the first sentence of the last line, which is the error's message."""
    return Path(error_file).read_text().strip().splitlines()[-1].split(". ")[0]


def _short_name(trial: Any) -> str:
    return str(trial.trial_id)


def _pickled(error: Exception) -> bytes:
    try:
        pickled: bytes = cloudpickle.dumps(error)
        pickle.loads(pickled)
    except Exception:
        pickled = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return pickled


@contextmanager
def _loopback(alone: bool) -> Iterator[None]:
    """Let Ray listen on the loopback interface only, as it does on macOS, if it runs `alone` on this machine."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = before and not alone
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handlers, in whose place Ray puts its own, which end the process without a word."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _ray(options: RayOptions) -> Iterator[None]:
    """Start or join Ray, with as little memory and output as possible."""
    environment = {**_OPTIONS_OF_TUNE, "TUNE_MAX_PENDING_TRIALS_PG": str(options.concurrency)}
    start: dict[str, Any] = {"address": options.address}
    if options.address is None:
        # Tune does not survive that Ray kills a process as memory runs short; the system kills workers first, too.
        environment["RAY_memory_monitor_refresh_ms"] = "0"
        # The workers find what this process finds.
        environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        start = {
            "address": "local",
            "num_cpus": options.concurrency * options.cpus_per_job,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with _own_signals(), _loopback(alone=options.address is None):
            ray.init(**start, log_to_driver=False, logging_level=logging.ERROR)
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        yield
    finally:
        ray.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
