"""The command that goes on with a search."""

from __future__ import annotations

import shlex

from nasseg import plugins
from nasseg.database import without_password
from nasseg.experiment.experiment import Experiment
from nasseg.planning.budget import Budget


def resume_command(search: Experiment, budget: Budget | None = None) -> str:
    """Format the command that goes on with a search, with another budget if one is given.

    It repeats the options that are not taken from a file alone.
    """
    config = search.config
    options = {
        "out": str(search.folder),
        "space": None if plugins.is_registered(config.space) else config.space,
        "storage": None if config.storage is None else without_password(config.storage),
        "ray-address": config.ray_address,
        "budget": None if budget is None else str(budget),
    }
    given = (f" --{name} {shlex.quote(value)}" for name, value in options.items() if value is not None)
    return f"nasseg search --resume{''.join(given)}"
