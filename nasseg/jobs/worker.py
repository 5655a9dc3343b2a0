"""The worker, which runs the jobs of a search one after another."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import torch
from typing_extensions import Self

from nasseg.jobs.context import Context
from nasseg.jobs.device_share import DeviceShare
from nasseg.jobs.end_to_end import train_end_to_end
from nasseg.jobs.proxy import Proxy
from nasseg.jobs.relax import train_relaxation
from nasseg.planning.config import SearchConfig
from nasseg.planning.job import Job, JobResult
from nasseg.run_folder import CHECKPOINTS_FOLDER


class Worker:
    """A worker in this process, which keeps data and stored features open between jobs."""

    def __init__(self, context: Context) -> None:
        """Raise `ValueError` if the data or the weights are not those that the search began with."""
        context.require_unchanged()
        self.context, self.proxy = context, Proxy(context)
        self._share = DeviceShare.of(context.problem.device)
        (context.folder / CHECKPOINTS_FOLDER).mkdir(exist_ok=True)

    @classmethod
    def open(cls, config: SearchConfig, folder: Path) -> Self:
        """Open a worker in a process that has nothing open yet."""
        return cls(Context.open(config, folder))

    def run(self, job: Job) -> JobResult:
        """Train the job's candidates; one whose loss is not finite is an outcome, not an error.

        Where the memory of a GPU does not suffice, they are trained one by one, then without other jobs beside them;
        one for which that does not suffice either is an outcome too.

        Once the context's `stop` is set it raises `Stopped`: what was trained end to end or of a relaxation goes on
        from there, a short run begins anew. Raises `RuntimeError` for a relaxation whose loss is not finite, and
        `ValueError` if the images that it read have changed since the search began.
        """
        result = self._fitted(job)
        if job.task != "proxy" or self.proxy.features is None:
            self.context.require_unchanged()
        return result

    def _fitted(self, job: Job) -> JobResult:
        """Run the job in the memory that there is."""
        start = time.perf_counter()
        # What a run had allocated is free once its error has been left behind.
        with suppress(torch.OutOfMemoryError), self._share.beside_others():
            return self._run(job)
        if len(job.candidates) > 1:
            parts = [self._fitted(job.model_copy(update={"candidates": (each,)})) for each in job.candidates]
            outcomes = tuple(part.outcomes[0] for part in parts)
            return JobResult(job=job, outcomes=outcomes, seconds=sum(part.seconds for part in parts))
        try:
            with self._share.alone():
                return self._run(job)
        except torch.OutOfMemoryError as error:
            if not job.candidates:
                raise
            message = f"{self.context.problem.device} lacks memory for it, even without other jobs: {error}"
            outcome = self.context.outcome(job.candidates[0], "unfit", job.start_step, message=message)
            return JobResult(job=job, outcomes=(outcome,), seconds=time.perf_counter() - start)

    def _run(self, job: Job) -> JobResult:
        start = time.perf_counter()
        torch.set_num_threads(self.context.plan.threads)
        if job.task == "relax":
            found = tuple(choice.model_dump(mode="json") for choice in train_relaxation(self.context, job))
            return JobResult(job=job, outcomes=(), found=found, seconds=time.perf_counter() - start)
        storing = self._store() if job.task == "proxy" else 0.0
        if job.task == "proxy":
            outcomes = self.proxy.train(job)
        else:
            outcomes = (train_end_to_end(self.context, job.candidates[0], job.seed, job.task == "prepare"),)
        return JobResult(job=job, outcomes=outcomes, seconds=time.perf_counter() - start, storing_seconds=storing)

    def _store(self) -> float:
        """Store the features that are missing, with the machine's other workers; returns the seconds that it took."""
        start = time.perf_counter()
        if self.proxy.features is not None and self.proxy.features.store():
            self.context.require_unchanged()
        return time.perf_counter() - start
