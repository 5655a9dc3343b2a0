"""The latency table of this machine, for searches with a target that name no table: made once, then kept."""

from __future__ import annotations

import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final, Protocol

import torch
from filelock import FileLock

from nasseg.cost.design import points_of, samples
from nasseg.cost.latency import default_dtype, device_name
from nasseg.cost.latency_table import Conditions
from nasseg.cost.profile import partial_file, profile, time_networks
from nasseg.graph.identity import digest
from nasseg.jobs.context import Problem
from nasseg.planning.budget import Budget
from nasseg.planning.machine import Hardware
from nasseg.run_folder import user_cache

NETWORKS = 30
"""Whole networks for the calibration."""
SHARE_OF_BUDGET = 0.1
SHORTEST_S, LONGEST_S = 60.0, 240.0
"""Time for a profile: its share of the search's, between these."""
PACE_NETWORKS, PACE_SECONDS = 8, 3.0
"""Whole networks that tell, in so much time, how fast the machine is beside when its table was made."""
CHANGED_PACE = 1.15
"""A machine whose pace has changed by this factor is said to have changed; it does by less from minute to minute."""


class Watcher(Protocol):
    """What follows a profile that a search begins with."""

    def say(self, message: str) -> None:
        """Take a line for people."""

    def show(self, what: str, done: int, of: int) -> None:
        """Take what is measured (operators, networks), how many are done, and how many there are."""


class Silent:
    """A watcher that shows nothing."""

    def say(self, message: str) -> None:
        """Ignore the line."""

    def show(self, what: str, done: int, of: int) -> None:
        """Ignore the progress."""


SILENT: Final[Watcher] = Silent()


def table_of_this_machine(problem: Problem, hardware: Hardware, watcher: Watcher) -> Path:
    """Return the file of this machine's latency table for a search, measured now if there is none.

    The table is kept in the user's cache for all searches of the same networks under the same conditions, and an
    interrupted profile is continued by the next of them. Raises `ValueError` if the cache cannot be written.
    """
    conditions = conditions_here(problem)
    path = cache_folder() / f"{_name(problem, conditions)}.json"
    seconds = profile_seconds(Budget.parse(problem.options.budget), hardware)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # two profiles at once would slow each other down
            if path.exists():
                watcher.say(
                    f"latency by this machine's table of {_age_text(path)} ago, {_under(conditions)}: {path}; "
                    "remove it to measure again"
                )
                problem.price_by(path)  # so that the table is read, and its predictions are fitted, once
                pace = pace_since(problem)
                if not 1 / CHANGED_PACE < pace < CHANGED_PACE:
                    watcher.say(
                        f"warning: networks take {pace:.2f} times as long now as when the table was made; measure "
                        "again if that is how fast this machine will be"
                    )
                return path
            resume = partial_file(path).exists()
            watcher.say(
                f"{'continuing to measure' if resume else 'measuring'} the operators of {problem.options.space} here, "
                f"{_under(conditions)}, for about {seconds:.0f} s; kept for later searches in {path}"
            )
            profile(
                problem.options.space,
                points_of(problem.space, problem.classes),
                samples(problem.space, problem.classes, NETWORKS),
                conditions,
                problem.device,
                path,
                limit_seconds=seconds,
                resume=resume,
                on_progress=watcher.show,
            )
    except KeyboardInterrupt:
        watcher.say("stopped; what was measured is kept, and the same search continues from there")
        raise
    except OSError as error:
        raise ValueError(
            f"{path.parent} cannot keep a latency table ({error.strerror}); name a writable folder in XDG_CACHE_HOME, "
            "or give a table with --latency"
        ) from None
    return path


def pace_since(problem: Problem) -> float:
    """Return how many times as long networks take now as by the table: the median of a few measured in turn."""
    table = problem.pricing.table
    assert table is not None
    networks = samples(problem.space, problem.classes, PACE_NETWORKS)
    measured = time_networks(networks, table.conditions, problem.device, PACE_SECONDS)
    return statistics.median(ms / table.latency_ms(network) for ms, network in zip(measured, networks, strict=True))


def conditions_here(problem: Problem) -> Conditions:
    """Return the conditions under which a network of this search would run here: PyTorch's own number of threads."""
    return Conditions.model_validate(
        {
            "device": device_name(problem.device),
            "dtype": default_dtype(problem.device),
            "backend": "eager",
            "batch": 1,
            "size": problem.size,
            "threads": torch.get_num_threads(),
        }
    )


def cache_folder() -> Path:
    """Return the folder of latency tables in the user's cache."""
    return user_cache() / "latency"


def profile_seconds(budget: Budget, hardware: Hardware) -> float:
    """Return how long a profile may take before a search with this budget."""
    share = SHARE_OF_BUDGET * budget.wall_seconds(hardware.cores, hardware.gpus)
    return min(max(share, SHORTEST_S), LONGEST_S)


def _name(problem: Problem, conditions: Conditions) -> str:
    """Hash what a table depends on; the references stand for the space, whose code may change."""
    references = [problem.architecture(choice).key for choice in problem.space.references().values()]
    depends_on = [version("nasseg"), problem.options.space, problem.classes, references]
    return digest([*depends_on, conditions.model_dump(mode="json")])


def _under(conditions: Conditions) -> str:
    height, width = conditions.size
    threads = f"{conditions.threads} thread{'s' if conditions.threads > 1 else ''}"
    return f"{height}x{width}, {conditions.dtype}, {threads} (another number: OMP_NUM_THREADS)"


def _age_text(path: Path) -> str:
    hours = max(0.0, time.time() - path.stat().st_mtime) / 3600
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} hours" if hours >= 2 else f"{hours * 60:.0f} min"
