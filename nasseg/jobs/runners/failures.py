"""Failed jobs: which are tried again and where, which devices are kept out."""

from __future__ import annotations

from collections import Counter, defaultdict

from nasseg.planning.job import Job

MOST_TRIES = 2
"""Of a job, on sound devices; if it has failed so often, its candidates have."""
MOST_IN_A_ROW = 3
"""Jobs that fail one after another on a device before it is kept out."""


class Failures:
    """The failures of jobs, counted by job and by device, whoever runs them.

    A broken device fails whatever it is given, and a broken candidate fails everywhere. So a job that failed is tried
    again: on a sound device if there is one, on which the latest job succeeded, else on one that it did not fail on. It
    has failed for good after `MOST_TRIES` on sound devices, or once no device is left to try; that counts against none
    of them. `MOST_IN_A_ROW` other failures without a success between them keep a device out, unless it is the last one.
    """

    def __init__(self) -> None:
        self.kept_out: set[str] = set()
        """The devices that get no jobs any more."""
        self._processes: Counter[str] = Counter()
        self._succeeded: set[str] = set()
        self._in_a_row: defaultdict[str, set[int]] = defaultdict(set)
        self._tried: defaultdict[int, list[str]] = defaultdict(list)

    def join(self, device: str) -> None:
        """Note that a process on a device is ready for jobs."""
        self._processes[device] += 1

    def leave(self, device: str) -> None:
        """Note that a process on a device has ended."""
        self._processes[device] -= 1

    def may_try_again(self, job: Job, device: str) -> bool:
        """Whether a device may take a job that has failed."""
        there, tried = {device, *self._in_use}, set(self._tried[job.number])
        sound = {name for name in there if name in self._succeeded and not self._in_a_row[name]}
        return device in (sound - tried or sound or there - tried or there)

    def succeed(self, job: Job, device: str) -> None:
        """Note that a job did not fail on a device."""
        self._succeeded.add(device)
        self._in_a_row[device].clear()
        self._tried.pop(job.number, None)

    def fail(self, job: Job, device: str) -> bool:
        """Note that a job failed on a device; returns whether it is to be tried again."""
        tried = self._tried[job.number]
        tried.append(device)
        self._in_a_row[device].add(job.number)
        if len(self._in_a_row[device]) >= MOST_IN_A_ROW and self._in_use - {device}:
            self.kept_out.add(device)
        on_sound = [name for name in tried if name in self._succeeded and self._in_a_row[name] <= {job.number}]
        nowhere_else = {device, *self._in_use} <= {*tried, *self.kept_out}
        if len(on_sound) < MOST_TRIES and not (nowhere_else and len(tried) >= MOST_TRIES):
            return True
        for name in self._tried.pop(job.number):
            self._in_a_row[name].discard(job.number)
        return False

    @property
    def _in_use(self) -> set[str]:
        return {name for name, count in self._processes.items() if count > 0} - self.kept_out
