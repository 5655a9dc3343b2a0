"""A worker on a machine that does not see the search's run folder: what its jobs need travels with them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from nasseg.graph import write_atomically
from nasseg.jobs.context import Context
from nasseg.jobs.worker import Worker
from nasseg.planning.config import SearchConfig
from nasseg.planning.job import Job, JobResult
from nasseg.run_folder import (
    LATENCY_TABLE_FILE,
    proxy_checkpoint,
    relaxation_checkpoint,
    relaxation_snapshot,
    trained_model,
    unfinished_training,
)


class RunFolder(Protocol):
    """The run folder, as any machine of a cluster reaches it. Names are relative to it."""

    path: Path
    """Where the machine that searches has it."""
    identity: str
    """A name of the search that has it, for file names."""

    def is_here(self) -> bool:
        """Return whether this machine sees it at its `path`."""

    def fetch(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """Return the content of those files that exist."""

    def store(self, files: Mapping[str, bytes]) -> None:
        """Write these files, each whole or not at all."""


def open_worker(config: SearchConfig, run_folder: RunFolder) -> Worker:
    """Open a worker that works in the run folder if this machine sees it, else in a folder of the machine's own."""
    if run_folder.is_here():
        return Worker.open(config, run_folder.path)
    return RemoteWorker(config, run_folder)


def folder_of_this_machine(identity: str) -> Path:
    """Locate the folder that the workers of a machine share which does not see the run folder of that identity.

    It is in the system's temporary folder (`TMPDIR`).
    """
    return Path(tempfile.gettempdir()) / f"nasseg-{identity}"


class RemoteWorker(Worker):
    """A worker that fetches what a job reads from the run folder, and stores there what the job has written.

    Features and inherited weights stay in the machine's folder, for all its workers. A training that its machine did
    not live to end begins anew on another.
    """

    def __init__(self, config: SearchConfig, run_folder: RunFolder) -> None:
        folder = folder_of_this_machine(run_folder.identity)
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise ValueError(f"{folder} belongs to somebody else; remove it, or set TMPDIR on that machine")
        self._run_folder, self._folder = run_folder, folder
        self._fetch([folder / LATENCY_TABLE_FILE])
        super().__init__(Context.open(config, folder))

    def run(self, job: Job) -> JobResult:
        """Run a job as any worker does."""
        read, written = list(self._read_by(job)), list(self._written_by(job))
        self._fetch([path for path in read if not path.exists()])
        result = super().run(job)
        self._run_folder.store(
            {path.relative_to(self._folder).as_posix(): path.read_bytes() for path in written if path.exists()}
        )
        for path in (*read, *written):
            if path.suffix == ".pt":
                path.unlink(missing_ok=True)
        return result

    def _fetch(self, paths: Sequence[Path]) -> None:
        found = self._run_folder.fetch([path.relative_to(self._folder).as_posix() for path in paths])
        for name, content in found.items():
            path = self._folder / name
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, content)

    def _read_by(self, job: Job) -> Iterator[Path]:
        if job.task == "relax":
            yield relaxation_checkpoint(self._folder, job.seed)
        for candidate in job.candidates:
            if job.task != "proxy":
                yield unfinished_training(self._model_of(job))
            elif job.start_step:
                yield proxy_checkpoint(self._folder, candidate.key, job.start_step)
        if job.task == "proxy" and self.proxy.features is not None:
            yield self.proxy.features.trained_reference

    def _written_by(self, job: Job) -> Iterator[Path]:
        if job.task == "relax":
            yield relaxation_checkpoint(self._folder, job.seed)
            yield relaxation_snapshot(self._folder, job.seed)
        for candidate in job.candidates:
            if job.task == "proxy":
                yield proxy_checkpoint(self._folder, candidate.key, job.stop_step)
            else:
                yield self._model_of(job)

    def _model_of(self, job: Job) -> Path:
        """Locate the model of a job that trains a network end to end."""
        if job.task == "prepare":
            return self.context.prepared_model
        return trained_model(self._folder, job.candidates[0].key, job.seed)
