"""What is read from a study: its trials and attributes as candidates and outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial
from pydantic import ValidationError

from nasseg.errors import one_line
from nasseg.foreign import DamagedError
from nasseg.planning.candidates import Trial, read_from
from nasseg.planning.job import Candidate, Outcome
from nasseg.space import Space

STEP = "step "
FULL = "full "


def with_prefix(prefix: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Select the attributes whose names begin with `prefix`, by the rest of the name."""
    return {name.removeprefix(prefix): value for name, value in attributes.items() if name.startswith(prefix)}


def read_full(attributes: Mapping[str, Any]) -> dict[str, dict[int, Outcome]]:
    """Read the end-to-end outcomes in a study's attributes, by key and seed."""
    full: dict[str, dict[int, Outcome]] = {}
    for name, value in with_prefix(FULL, attributes).items():
        key, seed = name.split(" ")
        full.setdefault(key, {})[int(seed)] = Outcome.model_validate(value)
    return full


def read_trial(
    recorded: FrozenTrial, space: Space[Any], full: Mapping[str, dict[int, Outcome]], *, elsewhere: bool
) -> Trial:
    """Read a candidate with its outcomes, of which the end-to-end ones are in `full` by key."""
    candidate = _candidate(recorded)
    steps = sorted(with_prefix(STEP, recorded.user_attrs), key=int)
    proxy = {int(step): Outcome.model_validate(recorded.user_attrs[f"{STEP}{step}"]) for step in steps}
    # In memory, the trial that was read need not have copies of its own.
    recorded.user_attrs.update({f"{STEP}{step}": proxy[int(step)] for step in steps}, choice=candidate.choice)
    return Trial(candidate, read_from(space), proxy=proxy, full=full.get(candidate.key, {}), elsewhere=elsewhere)


def _candidate(recorded: FrozenTrial) -> Candidate:
    """Read the candidate of a trial; raises `ValueError` if there is none, or if its names cannot name files."""
    named = {name: recorded.user_attrs.get(name) for name in ("key", "choice", "label")}
    try:
        return Candidate.model_validate({**named, "constraints": recorded.constraints})
    except ValidationError as error:
        raise DamagedError(one_line(error, f"trial {recorded.number} of the search's record")) from None
