"""Making a latency table: every operator of a space timed alone, then whole networks for the calibration."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt
from torch import Tensor, nn

from nasseg.cost.backends import DTYPES, Run, choose_backend
from nasseg.cost.calibration import Calibration, MeasuredNetwork, PredictionError
from nasseg.cost.describe import Shape, operator_cost
from nasseg.cost.design import find_operators, spread
from nasseg.cost.inference import inference_form, random_inputs
from nasseg.cost.latency_table import Conditions, Entry, LatencyTable, Operator, dump, operators_of
from nasseg.cost.memory import peak_memory_bytes
from nasseg.cost.timing import StopRule, Timing, clock_for, time_interleaved
from nasseg.graph import Architecture, read_model, write_atomically
from nasseg.graph.identity import digest
from nasseg.network import Network

PARTIAL_FORMAT: Final = "nasseg.latency-partial/1"
FEWEST_OPERATORS, MOST_OPERATORS, SECONDS_EACH = 400, 2000, 0.02
"""Of many operators, as many are measured as leave so much time for each in each pass, within these bounds."""
PASSES = 3
"""Passes over everything; the lowest median counts, as whatever else runs on a machine only adds time."""
OPERATORS_TOGETHER, MEBIBYTES_TOGETHER = 24, 512
"""Operators that take turns, and the memory their inputs and outputs may hold."""
NETWORKS_MEBIBYTES_TOGETHER = 4096
"""Whole networks take turns, all of them if they fit: those that differ little must meet the same drift."""
NETWORKS_SHARE = 0.4
"""Share of the time for whole networks."""
LEAST_SECONDS = 0.1
"""Time for each group, even past the limit."""

T = TypeVar("T")

OnProgress = Callable[[str, int, int], None]
"""Takes what is measured (operators, networks), how many are done, and how many there are."""


class PartialProfile(BaseModel):
    """The measurements of an unfinished profile: operators, then networks, in the order of their schedules.

    `plan` is the hash of everything to be measured, at most about `most_operators`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["nasseg.latency-partial/1"] = PARTIAL_FORMAT
    space: str
    conditions: Conditions
    plan: str
    most_operators: PositiveInt
    operators_found: PositiveInt
    entries: tuple[Entry, ...] = ()
    networks_ms: tuple[PositiveFloat, ...] = ()


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

    `points` are read until no new operator turns up for a while, or there are many. Measurements are kept in
    `OUT.partial`, from which `resume` continues. `limit_seconds` is roughly what all measurements may take; the less,
    the wider the intervals and, in large spaces, the fewer the operators that are measured. Raises `ValueError` if
    `resume` finds another profile.
    """
    operators_seconds = limit_seconds * (1 - NETWORKS_SHARE)
    most = max(FEWEST_OPERATORS, min(MOST_OPERATORS, round(operators_seconds / PASSES / SECONDS_EACH)))
    before = read_model(PartialProfile, partial_file(out), "the .partial file of a profile") if resume else None
    if before:
        most = before.most_operators
    found = find_operators(points, conditions.size)
    operators = spread(found, most)
    plan = digest([[operator.model_dump(mode="json") for operator in operators], [network.key for network in networks]])
    state = PartialProfile(
        space=space, conditions=conditions, plan=plan, most_operators=most, operators_found=len(found)
    )
    if before:
        _check_same(before, state, partial_file(out))
        state = before

    def save(**grown: object) -> PartialProfile:
        saved = state.model_copy(update=grown)
        write_atomically(partial_file(out), dump(saved))
        return saved

    schedule = [o for seed in range(PASSES) for o in random.Random(seed).sample(operators, len(operators))]
    groups = _operator_groups(schedule[len(state.entries) :], conditions)
    on_progress("operators", len(state.entries), len(schedule))
    for group, timings in _timed(groups, _prepare_operators, conditions, device, operators_seconds):
        entries = [
            Entry(operator=operator, median_ms=timing.median_ms, low_ms=timing.low_ms, high_ms=timing.high_ms)
            for operator, timing in zip(group, timings, strict=True)
        ]
        state = save(entries=(*state.entries, *entries))
        on_progress("operators", len(state.entries), len(schedule))

    runs = [*networks] * PASSES
    on_progress("networks", len(state.networks_ms), len(runs))
    chunks = _network_groups(runs[len(state.networks_ms) :], len(networks), conditions, device)
    for _, timings in _timed(chunks, _prepare_networks, conditions, device, limit_seconds * NETWORKS_SHARE):
        state = save(networks_ms=(*state.networks_ms, *(timing.median_ms for timing in timings)))
        on_progress("networks", len(state.networks_ms), len(runs))

    table = _table(state, networks)
    table.save(out)
    partial_file(out).unlink()
    return table


def time_networks(
    networks: Sequence[Architecture], conditions: Conditions, device: torch.device, limit_seconds: float
) -> list[float]:
    """Measure the latency of whole networks in milliseconds, as `profile` does."""
    chunks = _network_groups([*networks] * PASSES, len(networks), conditions, device)
    timed = _timed(chunks, _prepare_networks, conditions, device, limit_seconds)
    return _lowest([timing.median_ms for _, timings in timed for timing in timings], len(networks))


def partial_file(out: Path) -> Path:
    """Name the file that keeps an unfinished profile."""
    return out.with_name(f"{out.name}.partial")


def _timed(
    groups: Sequence[Sequence[T]],
    prepare: Callable[[Sequence[T], Conditions, torch.device], list[Run]],
    conditions: Conditions,
    device: torch.device,
    limit_seconds: float,
) -> Iterator[tuple[Sequence[T], list[Timing]]]:
    """Time each group, sharing out the time evenly."""
    clock = clock_for(device, conditions.backend, conditions.threads)
    deadline = time.monotonic() + limit_seconds
    for index, group in enumerate(groups):
        with torch.inference_mode():
            runs = {str(place): run for place, run in enumerate(prepare(group, conditions, device))}
            seconds = max(LEAST_SECONDS, (deadline - time.monotonic()) / (len(groups) - index))
            timings = time_interleaved(runs, device, stop=StopRule(limit_seconds=seconds), clock=clock)
        yield group, list(timings.values())


def _prepare_operators(operators: Sequence[Operator], conditions: Conditions, device: torch.device) -> list[Run]:
    held: dict[tuple[Shape, int], Tensor] = {}
    runs = []
    for operator in operators:
        # Operators share inputs: this saves memory, and an operator in a network finds its input in the cache too.
        inputs = []
        for place, shape in enumerate(operator.inputs):
            if (shape, place) not in held:
                held[shape, place] = _input(shape, conditions, device)
            inputs.append(held[shape, place])
        module = operator.op.build([channels for channels, _, _ in operator.inputs])
        runs.append(_prepare(module, tuple(inputs), conditions, device))
    return runs


def _prepare_networks(networks: Sequence[Architecture], conditions: Conditions, device: torch.device) -> list[Run]:
    image = _input((3, *conditions.size), conditions, device)
    return [_prepare(Network(network.inference()), (image,), conditions, device) for network in networks]


def _prepare(module: nn.Module, inputs: tuple[Tensor, ...], conditions: Conditions, device: torch.device) -> Run:
    return choose_backend(conditions.backend, device, conditions.dtype).prepare(inference_form(module, inputs), inputs)


def _input(shape: Shape, conditions: Conditions, device: torch.device) -> Tensor:
    (value,) = random_inputs([(conditions.batch, *shape)], device, DTYPES[conditions.dtype])
    return value


def _operator_groups(operators: Sequence[Operator], conditions: Conditions) -> list[list[Operator]]:
    """Group operators, in the given order, into groups that fit into memory together."""

    def mebibytes(operator: Operator) -> float:
        shapes = (*operator.inputs, operator_cost(operator.op, operator.inputs).shape)
        return sum(map(math.prod, shapes)) * conditions.batch * DTYPES[conditions.dtype].itemsize / 2**20

    return _groups(operators, mebibytes, OPERATORS_TOGETHER, MEBIBYTES_TOGETHER)


def _network_groups(
    runs: Sequence[Architecture], most: int, conditions: Conditions, device: torch.device
) -> list[list[Architecture]]:
    """Group networks, in the given order, into groups of at most `most` that fit into memory together."""

    def mebibytes(network: Architecture) -> float:
        if device.type == "cpu":  # maps are freed after each run; on a GPU, its graph keeps them
            needed = network.describe(conditions.size).params * DTYPES[conditions.dtype].itemsize
        else:
            needed = peak_memory_bytes(network, conditions.size, batch=conditions.batch, dtype=conditions.dtype)
        return needed / 2**20

    return _groups(runs, mebibytes, most, NETWORKS_MEBIBYTES_TOGETHER)


def _groups(things: Sequence[T], mebibytes: Callable[[T], float], most: int, most_mebibytes: float) -> list[list[T]]:
    groups: list[list[T]] = []
    taken = math.inf
    for thing in things:
        needed = mebibytes(thing)
        if taken + needed > most_mebibytes or len(groups[-1]) == most:
            groups.append([])
            taken = 0.0
        groups[-1].append(thing)
        taken += needed
    return groups


def _table(state: PartialProfile, networks: Sequence[Architecture]) -> LatencyTable:
    best: dict[Operator, Entry] = {}
    for entry in state.entries:
        if entry.operator not in best or entry.median_ms < best[entry.operator].median_ms:
            best[entry.operator] = entry
    plain = LatencyTable(
        space=state.space,
        conditions=state.conditions,
        operators_found=state.operators_found,
        calibration=Calibration(),
        error=PredictionError.of([1.0], [1.0]),
        entries=tuple(best.values()),
    )
    measured = [
        MeasuredNetwork(
            operators_ms=plain.latency_ms(network),
            nodes=len(operators_of(network, state.conditions.size)),
            latency_ms=latency_ms,
        )
        for network, latency_ms in zip(networks, _lowest(state.networks_ms, len(networks)), strict=True)
    ]
    fitted = {"calibration": Calibration.fit(measured), "error": PredictionError.cross_validated(measured)}
    return plain.model_copy(update=fitted)


def _lowest(times_ms: Sequence[float], count: int) -> list[float]:
    """Return the lowest time of each of `count` things, timed in the same order in every pass."""
    return [min(times_ms[place::count]) for place in range(count)]


def _check_same(before: PartialProfile, now: PartialProfile, path: Path) -> None:
    """Raise `ValueError` unless an unfinished profile, read from `path`, is of the same things and conditions."""
    then, today = ({"space": state.space, **state.conditions.model_dump()} for state in (before, now))
    for name, value in today.items():
        if then[name] != value:
            raise ValueError(
                f"{path} was measured with {name} {then[name]}, but {name} is {value} now; "
                f"give the same options, or remove {path} to start over"
            )
    if before.plan != now.plan:
        raise ValueError(
            f"{path} is of other operators or networks; give the same --classes and --networks, or remove {path.name}"
        )
