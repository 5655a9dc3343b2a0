"""Making a latency table: every operator of a space timed alone, then whole networks for the calibration."""

from __future__ import annotations

import math
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from torch import Tensor, nn

from nasseg.cost.backends import DTYPES, Backend, Run, choose_backend
from nasseg.cost.calibration import Calibration, MeasuredNetwork, PredictionError
from nasseg.cost.describe import Shape, operator_cost
from nasseg.cost.inference import inference_form, random_inputs
from nasseg.cost.table import Conditions, Entry, LatencyTable, Operator, dump, operators_of, read_json
from nasseg.cost.timing import StopRule, Timing, time_interleaved
from nasseg.errors import one_line
from nasseg.graph import Architecture, write_atomically
from nasseg.network import Network

PARTIAL_FORMAT: Final = "nasseg.latency-partial/1"
PATIENCE = 200
"""Points in a row without a new operator after which all are taken for found."""
MOST_OPERATORS = 1000
"""Of more than these, the most frequent are measured."""
OPERATORS_TOGETHER, MEBIBYTES_TOGETHER = 24, 512
"""Operators that take turns, and the inputs and outputs that may be held for them."""
NETWORKS_TOGETHER = 6
NETWORKS_SHARE = 0.4
"""Of the time, for whole networks."""

OnProgress = Callable[[str, int, int], None]
"""Told what is measured (operators, networks), how many of them are, and of how many."""


class PartialProfile(BaseModel):
    """What was measured so far of a profile that goes on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["nasseg.latency-partial/1"] = PARTIAL_FORMAT
    space: str
    conditions: Conditions
    operators_found: PositiveInt
    entries: tuple[Entry, ...] = ()
    networks: tuple[MeasuredNetwork, ...] = ()


def profile(
    space: str,
    points: Iterable[Architecture],
    networks: Sequence[Architecture],
    conditions: Conditions,
    device: torch.device,
    out: Path,
    *,
    limit_seconds: float = 600.0,
    resume: bool = False,
    on_progress: OnProgress = lambda what, done, of: None,
) -> LatencyTable:
    """Measure the operators of `points` and the whole `networks`, write the table to `out`, and return it.

    `points` are read until no new operator turns up for a while, or they end. What was measured is kept in
    `OUT.partial`, from which `resume` goes on. `limit_seconds` is about what all measurements may take; the less there
    is, the wider the intervals. Raises `ValueError` where `resume` does not fit.
    """
    found = find_operators(points, conditions.size)
    fresh = PartialProfile(space=space, conditions=conditions, operators_found=len(found))
    partial = partial_file(out)
    state = _continued(fresh, partial) if resume and partial.exists() else fresh
    operators = found[:MOST_OPERATORS]
    random.Random(0).shuffle(operators)
    backend = choose_backend(conditions.backend, device, conditions.dtype)

    def save(entries: Sequence[Entry] = (), measured: Sequence[MeasuredNetwork] = ()) -> PartialProfile:
        grown = state.model_copy(
            update={"entries": (*state.entries, *entries), "networks": (*state.networks, *measured)}
        )
        write_atomically(partial, dump(grown))
        return grown

    known = {entry.operator for entry in state.entries}
    groups = list(_groups([o for o in operators if o not in known], conditions))
    deadline = time.monotonic() + limit_seconds * (1 - NETWORKS_SHARE)
    for index, group in enumerate(groups):
        on_progress("operators", len(state.entries), len(operators))
        seconds = max(0.1, (deadline - time.monotonic()) / (len(groups) - index))
        timings = _time(_prepared_operators(group, conditions, device, backend), device, seconds)
        state = save(
            [
                Entry(operator=operator, median_ms=timing.median_ms, low_ms=timing.low_ms, high_ms=timing.high_ms)
                for operator, timing in zip(group, timings, strict=True)
            ]
        )
    on_progress("operators", len(state.entries), len(operators))

    table = _table(state, Calibration(), PredictionError(networks=1, spearman=0.0, mape_percent=0.0))
    waiting = networks[len(state.networks) :]
    chunks = [waiting[i : i + NETWORKS_TOGETHER] for i in range(0, len(waiting), NETWORKS_TOGETHER)]
    for chunk in chunks:
        on_progress("networks", len(state.networks), len(networks))
        timings = time_networks(chunk, conditions, device, limit_seconds * NETWORKS_SHARE / len(chunks))
        state = save(
            measured=[
                MeasuredNetwork(
                    operators_ms=table.latency_ms(network),
                    nodes=len(operators_of(network, conditions.size)),
                    latency_ms=timing.median_ms,
                )
                for network, timing in zip(chunk, timings, strict=True)
            ]
        )
    on_progress("networks", len(state.networks), len(networks))
    table = _table(state, Calibration.fit(state.networks), PredictionError.cross_validated(state.networks))
    table.save(out)
    partial.unlink()
    return table


def find_operators(points: Iterable[Architecture], size: tuple[int, int]) -> list[Operator]:
    """The distinct operators of `points`, the most frequent first; reads until no new one turns up for a while."""
    frequency: Counter[Operator] = Counter()
    without_new = 0
    for point in points:
        known = len(frequency)
        frequency.update(operators_of(point, size))
        without_new = 0 if len(frequency) > known else without_new + 1
        if without_new == PATIENCE:
            break
    return [operator for operator, _ in frequency.most_common()]


def time_networks(
    networks: Sequence[Architecture], conditions: Conditions, device: torch.device, limit_seconds: float
) -> list[Timing]:
    """The latency of whole networks, which take turns, under `conditions`."""
    backend = choose_backend(conditions.backend, device, conditions.dtype)
    (image,) = _inputs([(3, *conditions.size)], conditions, device)
    runs = [_prepare(Network(network.inference()), (image,), backend) for network in networks]
    return _time(runs, device, limit_seconds)


def partial_file(out: Path) -> Path:
    """Where a profile is kept that is not finished."""
    return out.with_name(f"{out.name}.partial")


def _prepared_operators(
    operators: Sequence[Operator], conditions: Conditions, device: torch.device, backend: Backend
) -> list[Run]:
    held: dict[Shape, list[Tensor]] = {}
    runs = []
    for operator in operators:
        # Operators share their inputs: it saves memory, and an operator in a network finds its input in the cache too.
        inputs: list[Tensor] = []
        for shape in operator.inputs:
            same = held.setdefault(shape, [])
            used = operator.inputs[: len(inputs)].count(shape)
            if len(same) == used:
                same.extend(_inputs([shape], conditions, device))
            inputs.append(same[used])
        module = operator.op.build([channels for channels, _, _ in operator.inputs])
        runs.append(_prepare(module, tuple(inputs), backend))
    return runs


def _prepare(module: nn.Module, inputs: tuple[Tensor, ...], backend: Backend) -> Run:
    with torch.inference_mode():
        return backend.prepare(inference_form(module, inputs), inputs)


def _inputs(shapes: Sequence[Shape], conditions: Conditions, device: torch.device) -> tuple[Tensor, ...]:
    return random_inputs([(conditions.batch, *shape) for shape in shapes], device, DTYPES[conditions.dtype])


@torch.inference_mode()
def _time(runs: Sequence[Run], device: torch.device, limit_seconds: float) -> list[Timing]:
    named: Mapping[str, Run] = {str(index): run for index, run in enumerate(runs)}
    return list(time_interleaved(named, device, stop=StopRule(limit_seconds=limit_seconds)).values())


def _groups(operators: Sequence[Operator], conditions: Conditions) -> Iterator[list[Operator]]:
    """Operators in the given order, in groups that fit into memory together."""
    group: list[Operator] = []
    mebibytes = 0.0
    for operator in operators:
        values = sum(map(math.prod, (*operator.inputs, operator_cost(operator.op, operator.inputs).shape)))
        needed = values * conditions.batch * DTYPES[conditions.dtype].itemsize / 2**20
        if group and (len(group) == OPERATORS_TOGETHER or mebibytes + needed > MEBIBYTES_TOGETHER):
            yield group
            group, mebibytes = [], 0.0
        group.append(operator)
        mebibytes += needed
    if group:
        yield group


def _table(state: PartialProfile, calibration: Calibration, error: PredictionError) -> LatencyTable:
    return LatencyTable(
        space=state.space, conditions=state.conditions, operators_found=state.operators_found,
        calibration=calibration, error=error, entries=state.entries,
    )  # fmt: skip


def _continued(fresh: PartialProfile, path: Path) -> PartialProfile:
    """The unfinished profile in a file, if it is of the same things under the same conditions as `fresh`."""
    try:
        state = PartialProfile.model_validate(read_json(path, "what a profile left"))
    except ValidationError as error:
        raise ValueError(one_line(error, str(path))) from None
    before, now = ({"space": s.space, **s.conditions.model_dump()} for s in (state, fresh))
    for name, value in now.items():
        if before[name] != value:
            raise ValueError(
                f"{path} was measured with {name} {before[name]}, but {name} is {value} now; "
                f"give the same options, or remove the file {os.fspath(path)!r} to start anew"
            )
    return state
