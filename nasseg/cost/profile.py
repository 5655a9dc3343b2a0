"""Making a latency table: every operator of a space timed alone, then whole networks for the calibration."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from nasseg.cost.backends import DTYPES, Run, choose_backend
from nasseg.cost.calibration import Calibration, MeasuredNetwork, PredictionError
from nasseg.cost.describe import Shape, operator_cost
from nasseg.cost.design import find_operators, spread
from nasseg.cost.inference import inference_form, random_inputs
from nasseg.cost.latency_table import Conditions, Entry, LatencyTable, Operator, dump, operators_of
from nasseg.cost.memory import peak_memory_bytes
from nasseg.cost.timing import StopRule, apart_from_pace, clock_for, time_interleaved
from nasseg.graph import Architecture, read_model, write_atomically
from nasseg.graph.identity import digest
from nasseg.network import Network

PARTIAL_FORMAT: Final = "nasseg.latency-partial/2"
FEWEST_OPERATORS, MOST_OPERATORS, SECONDS_EACH = 400, 2000, 0.02
"""Of many operators, as many are measured as leave so much time for each in each pass, within these bounds."""
PASSES = 3
"""Passes over everything, each in an order of its own, so that a group's pace is none of its members' properties."""
OPERATORS_TOGETHER, MEBIBYTES_TOGETHER = 24, 512
"""Operators that take turns, and the memory their inputs and outputs may hold."""
NETWORKS_MEBIBYTES_TOGETHER = 4096
"""Whole networks take turns, all of them if they fit: those that differ little must meet the same drift."""
NETWORKS_SHARE = 0.4
"""Share of the time for whole networks."""
LEAST_SECONDS = 0.1
"""Time for each group, even past the limit."""

T = TypeVar("T")

Measured = Literal["operators", "networks"]
OnProgress = Callable[[Measured, int, int], None]
"""Takes what is measured, how many are done, and how many there are."""


class TimedGroup(BaseModel):
    """What took turns: places in the list of all operators or networks, and the time of each with its interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    places: tuple[NonNegativeInt, ...]
    median_ms: tuple[PositiveFloat, ...]
    low_ms: tuple[PositiveFloat, ...]
    high_ms: tuple[PositiveFloat, ...]


class PartialProfile(BaseModel):
    """The measurements of an unfinished profile: operators, then networks, in the order of their schedules.

    `plan` is the hash of everything to be measured, at most about `most_operators`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["nasseg.latency-partial/2"] = PARTIAL_FORMAT
    space: str
    conditions: Conditions
    plan: str
    most_operators: PositiveInt
    operators_found: PositiveInt
    operators: tuple[TimedGroup, ...] = ()
    networks: tuple[TimedGroup, ...] = ()


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

    def measure(what: Measured, timer: _Timer[Any], seconds: float) -> None:
        nonlocal state
        groups: tuple[TimedGroup, ...] = getattr(state, what)
        done = sum(len(group.places) for group in groups)
        on_progress(what, done, timer.count)
        for group in timer.timed(done, seconds):
            groups = (*groups, group)
            state = state.model_copy(update={what: groups})
            write_atomically(partial_file(out), dump(state))
            done += len(group.places)
            on_progress(what, done, timer.count)

    measure("operators", _of_operators(operators, conditions, device), operators_seconds)
    measure("networks", _of_networks(networks, conditions, device), limit_seconds * NETWORKS_SHARE)
    table = _table(state, operators, networks)
    table.save(out)
    partial_file(out).unlink()
    return table


def time_networks(
    networks: Sequence[Architecture], conditions: Conditions, device: torch.device, limit_seconds: float
) -> list[float]:
    """Measure the latency of whole networks in milliseconds, as `profile` does."""
    groups = list(_of_networks(networks, conditions, device).timed(0, limit_seconds))
    return _apart(groups, len(networks))


def partial_file(out: Path) -> Path:
    """Name the file that keeps an unfinished profile."""
    return out.with_name(f"{out.name}.partial")


@dataclass(frozen=True)
class _Timer(Generic[T]):
    """The timing of `things` in passes, in groups that take turns and fit into memory together."""

    things: Sequence[T]
    prepare: Callable[[Sequence[T]], list[Run]]
    mebibytes: Callable[[T], float]
    most_together: int
    most_mebibytes: float
    conditions: Conditions
    device: torch.device

    @property
    def count(self) -> int:
        """The runs of all passes."""
        return PASSES * len(self.things)

    def timed(self, done: int, limit_seconds: float) -> Iterator[TimedGroup]:
        """Time everything but the first `done` runs, sharing out the time evenly among groups."""
        places = range(len(self.things))
        schedule = [place for seed in range(PASSES) for place in random.Random(seed).sample(places, len(places))]
        groups = self._groups(schedule[done:])
        clock = clock_for(self.device, self.conditions.backend, self.conditions.threads)
        deadline = time.monotonic() + limit_seconds
        runs: dict[str, Run] = {}
        for index, group in enumerate(groups):
            names = [str(place) for place in group]
            with torch.inference_mode():
                if set(names) != set(runs):  # where all fit into memory together, every pass has the same
                    runs.clear()  # before the next ones take memory
                    runs.update(zip(names, self.prepare([self.things[place] for place in group]), strict=True))
                seconds = max(LEAST_SECONDS, (deadline - time.monotonic()) / (len(groups) - index))
                timings = time_interleaved(runs, self.device, stop=StopRule(limit_seconds=seconds), clock=clock)
            yield TimedGroup(
                places=tuple(map(int, timings)),
                median_ms=tuple(timing.median_ms for timing in timings.values()),
                low_ms=tuple(timing.low_ms for timing in timings.values()),
                high_ms=tuple(timing.high_ms for timing in timings.values()),
            )

    def _groups(self, places: Sequence[int]) -> list[list[int]]:
        groups: list[list[int]] = []
        taken = math.inf
        for place in places:
            needed = self.mebibytes(self.things[place])
            if taken + needed > self.most_mebibytes or len(groups[-1]) == self.most_together or place in groups[-1]:
                groups.append([])
                taken = 0.0
            groups[-1].append(place)
            taken += needed
        return groups


def _of_operators(operators: Sequence[Operator], conditions: Conditions, device: torch.device) -> _Timer[Operator]:
    def mebibytes(operator: Operator) -> float:
        shapes = (*operator.inputs, operator_cost(operator.op, operator.inputs).shape)
        return sum(map(math.prod, shapes)) * conditions.batch * DTYPES[conditions.dtype].itemsize / 2**20

    prepare = partial(_prepare_operators, conditions=conditions, device=device)
    return _Timer(operators, prepare, mebibytes, OPERATORS_TOGETHER, MEBIBYTES_TOGETHER, conditions, device)


def _of_networks(
    networks: Sequence[Architecture], conditions: Conditions, device: torch.device
) -> _Timer[Architecture]:
    def mebibytes(network: Architecture) -> float:
        if device.type == "cpu":  # maps are freed after each run; on a GPU, its graph keeps them
            needed = network.describe(conditions.size).params * DTYPES[conditions.dtype].itemsize
        else:
            needed = peak_memory_bytes(network, conditions.size, batch=conditions.batch, dtype=conditions.dtype)
        return needed / 2**20

    prepare = partial(_prepare_networks, conditions=conditions, device=device)
    return _Timer(networks, prepare, mebibytes, len(networks), NETWORKS_MEBIBYTES_TOGETHER, conditions, device)


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


def _table(state: PartialProfile, operators: Sequence[Operator], networks: Sequence[Architecture]) -> LatencyTable:
    tightest: dict[int, tuple[float, float]] = {}
    for group in state.operators:
        for place, *interval in zip(group.places, group.median_ms, group.low_ms, group.high_ms, strict=True):
            low, high = (end / interval[0] for end in interval[1:])
            tightest[place] = min(tightest.get(place, (0.0, math.inf)), (low, high), key=lambda ends: ends[1] - ends[0])
    plain = LatencyTable(
        space=state.space,
        conditions=state.conditions,
        operators_found=state.operators_found,
        calibration=Calibration(),
        error=PredictionError.of([1.0], [1.0]),
        entries=tuple(
            Entry(operator=operator, median_ms=ms, low_ms=ms * tightest[place][0], high_ms=ms * tightest[place][1])
            for place, (operator, ms) in enumerate(zip(operators, _apart(state.operators, len(operators)), strict=True))
        ),
    )
    measured = [
        MeasuredNetwork(
            operators_ms=plain.latency_ms(network),
            nodes=len(operators_of(network, state.conditions.size)),
            latency_ms=latency_ms,
        )
        for network, latency_ms in zip(networks, _apart(state.networks, len(networks)), strict=True)
    ]
    fitted = {"calibration": Calibration.fit(measured), "error": PredictionError.cross_validated(measured)}
    return plain.model_copy(update=fitted)


def _apart(groups: Sequence[TimedGroup], count: int) -> list[float]:
    pairs = [list(zip(group.places, group.median_ms, strict=True)) for group in groups]
    return apart_from_pace(pairs, count)


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
