"""Retraining in several processes with Ray Train, on one machine or a cluster."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.queue import Empty, Queue

from nasseg.jobs.runners.dispatch import StopEvent
from nasseg.jobs.runners.ray_session import session
from nasseg.run_folder import MODEL_FILE
from nasseg.train.distributed.group import Group
from nasseg.train.fit import Stopped
from nasseg.train.retrain import Retraining
from nasseg.train.retraining.watcher import Unwatched, Watcher

Say = Callable[[str], None]
MakeWatcher = Callable[[Retraining, StopEvent, Say], AbstractContextManager[Watcher]]

RESTARTS_AFTER_DEATH = 3
"""Of all workers, from the last checkpoint, if one dies."""
POLL_S = 0.5
ENDING_S = 30.0
"""How long workers may take to end once one of them has said why."""
_OPTIONS_OF_TRAIN = {
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # By default Ray begins anew, for ever, if workers on a busy machine are not there after a minute.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
}


def retrain_on_workers(
    training: Retraining, make_watcher: MakeWatcher, *, address: str | None, stop: StopEvent, say: Say
) -> None:
    """Carry out a retraining on as many workers as its options say, each with a GPU if it is on GPUs.

    On the cluster at `address`, all machines must see the run folder and the data under the same paths; without one,
    all workers are on this machine. The first worker makes the watcher, whose lines are said here. If a worker dies,
    all go on from the last checkpoint. Raises `Stopped` once `stop` is set and the state is saved, and `ValueError` if
    there are too few GPUs or cores.
    """
    config, on_gpus = training.config, training.device.type == "cuda"
    cores = config.threads or 1
    os.environ.update(_OPTIONS_OF_TRAIN)
    with session(address, config.workers * cores) as check, tempfile.TemporaryDirectory() as scratch:
        _check_room(config.workers, "GPU" if on_gpus else "CPU", 1 if on_gpus else cores)
        lines, stops = (Queue(actor_options={"num_cpus": 0}) for _ in range(2))
        trainer = TorchTrainer(
            _train,
            train_loop_config={
                "folder": training.folder.resolve(),
                "make_watcher": make_watcher,
                "lines": lines,
                "stops": stops,
            },
            torch_config=TorchConfig(backend="nccl" if on_gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=config.workers, use_gpu=on_gpus, resources_per_worker={"CPU": cores, "GPU": int(on_gpus)}
            ),
            run_config=RunConfig(
                name="retrain", storage_path=scratch, failure_config=FailureConfig(max_failures=RESTARTS_AFTER_DEATH)
            ),
        )
        _follow(trainer, lines, stops, stop, say, check)
    if not (training.folder / MODEL_FILE).exists():
        raise Stopped


def _train(options: dict[str, Any]) -> None:
    """Train in one worker; a `ValueError` goes to the driver as a message, as Ray would try it again."""
    lines: Queue = options["lines"]
    try:
        training = Retraining.load(options["folder"])
        training.device = get_device()
        group = Group.joined()
        if group.rank > 0:
            training.run(Unwatched(), group)
            return
        with options["make_watcher"](training, _RemoteStop(options["stops"]), lines.put) as watcher:
            training.run(watcher, group)
    except Stopped:
        return
    except ValueError as error:
        lines.put(ValueError(str(error)))


class _RemoteStop:
    """The driver's wish to stop, looked up now and then."""

    def __init__(self, stops: Queue) -> None:
        self._stops, self._is_set, self._asked = stops, False, 0.0

    def is_set(self) -> bool:
        """Tell whether the driver wants to stop."""
        if not self._is_set and time.monotonic() - self._asked > POLL_S:
            self._asked = time.monotonic()
            self._is_set = not self._stops.empty()
        return self._is_set


def _follow(
    trainer: TorchTrainer, lines: Queue, stops: Queue, stop: StopEvent, say: Say, check: Callable[[], None]
) -> None:
    """Run the trainer in a thread, as in the main one Ray would take Ctrl-C for itself; raises what a worker raised."""
    failures: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    told = False
    while thread.is_alive() or not lines.empty():
        check()
        if stop.is_set() and not told:
            stops.put(True)
            told = True
        try:
            message = lines.get(timeout=POLL_S)
        except Empty:
            continue
        if isinstance(message, Exception):
            thread.join(ENDING_S)  # Ray ends this process if its session ends in the middle of a call
            raise message
        say(message)
    if failures:
        raise _cause(failures[0])


def _cause(error: BaseException) -> BaseException:
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        first = next(iter(error.worker_failures.values()))
        return RuntimeError(f"a worker died {RESTARTS_AFTER_DEATH + 1} times; the last time by: {first}")
    return error


def _check_room(workers: int, kind: str, each: int) -> None:
    available = int(ray.cluster_resources().get(kind, 0))
    if available < workers * each:
        raise ValueError(
            f"{workers} workers need {workers * each} {kind}s, but there are {available}: give fewer workers"
        )
