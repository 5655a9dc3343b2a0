"""Adapters that carry a planner's jobs to workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nasseg.search.job import Job, JobResult
from nasseg.search.planner import Planner
from nasseg.search.runners.delivery import StopEvent

if TYPE_CHECKING:
    from nasseg.search.config import SearchConfig


class Runner(Protocol):
    """Runs the planner's jobs with workers of a search in its run folder, until there are no more or `stop` is set."""

    def __call__(
        self,
        planner: Planner,
        *,
        config: SearchConfig,
        folder: Path,
        on_start: Callable[[Job], None],
        on_result: Callable[[JobResult], None],
        spent: Callable[[], float],
        stop: StopEvent,
    ) -> None:
        """See the runners' own modules."""


def _in_process(planner: Planner, *, config: SearchConfig, folder: Path, **observers: Any) -> None:
    from nasseg.search.runners.in_process import run_jobs
    from nasseg.search.worker import SearchWorker

    run_jobs(planner, partial(SearchWorker, config, folder), **observers)


def _ray(planner: Planner, *, config: SearchConfig, folder: Path, **observers: Any) -> None:
    from nasseg.search.runners.ray_tune import RayOptions, run_jobs
    from nasseg.search.worker import SearchWorker

    if config.plan is None:
        raise ValueError("a runner needs a config with a plan")
    options = RayOptions(
        concurrency=config.plan.concurrency,
        cpus_per_job=config.plan.threads,
        gpus_per_job=config.plan.gpus_per_trial,
        address=config.ray_address,
    )
    run_jobs(planner, partial(SearchWorker, config, folder.resolve()), options=options, **observers)


RUNNERS: Mapping[str, Runner] = {"ray": _ray, "in-process": _in_process}
