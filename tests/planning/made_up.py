"""A cell space in miniature, one with a dial, and a trainer whose scores are a pure function of choice and step."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar

from nasseg.graph import Architecture, Builder
from nasseg.ops import Conv, Resize, logits1x1
from nasseg.planning.fitting import Fitting
from nasseg.planning.job import Candidate, Costs, Job, JobResult, Outcome
from nasseg.planning.limits import Limits
from nasseg.planning.samplers.base import Region
from nasseg.space import Choice, Decide, Space


class Cell(Choice):
    """Branches whose order has no meaning."""

    branches: tuple[int, ...]


class CellSpace(Space[Cell]):
    """`branches` branches with one of `operators` operators each, like DPC's but without inputs."""

    branches: int = 3
    operators: int = 5

    shared_stage: ClassVar[str | None] = "backbone"

    def decisions(self, decide: Decide) -> None:
        for i in range(self.branches):
            decide.category(f"branches.{i}", range(self.operators))

    def references(self) -> dict[str, Cell]:
        last = self.operators - 1
        return {"aspp": Cell(branches=(0,) * self.branches), "published": Cell(branches=(last,) * self.branches)}

    def canonical(self, choice: Cell) -> Cell:
        return Cell(branches=tuple(sorted(choice.branches)))

    def architecture(self, choice: Cell, classes: int) -> Architecture:
        raise NotImplementedError


class ManyReferences(CellSpace):
    """Four references, more than the final trains, and whole networks as trials."""

    shared_stage: ClassVar[None] = None

    def references(self) -> dict[str, Cell]:
        return {f"all{op}": Cell(branches=(op,) * self.branches) for op in (4, 1, 3, 0)}


class ScaledCell(Choice):
    """The operator of each convolution, and the share of the channels that all have."""

    branches: tuple[int, ...]
    width: float


@cache
def channels_at(width: float, channels: tuple[int, ...]) -> tuple[int, ...]:
    """Scale and round to multiples of 4."""
    return tuple(4 * max(1, round(width * count / 4)) for count in channels)


class ScaledSpace(Space[ScaledCell]):
    """Convolutions one after another, of which operator i has a kernel of 2 i + 1; the dial is their width."""

    channels: tuple[int, ...] = (24, 56, 88)
    operators: int = 5

    dial: ClassVar[str] = "width"
    shared_stage: ClassVar[None] = None
    widths: ClassVar[tuple[float, ...]] = tuple(round(0.1 * 40 ** (i / 99), 4) for i in range(100))
    """From 0.1 to 4."""

    def decisions(self, decide: Decide) -> None:
        for i in range(len(self.channels)):
            decide.category(f"branches.{i}", range(self.operators))
        decide.ordered("width", self.widths)

    def references(self) -> dict[str, ScaledCell]:
        count = len(self.channels)
        return {
            "plain": ScaledCell(branches=(1,) * count, width=self.widths[60]),
            "large": ScaledCell(branches=(self.operators - 1,) * count, width=self.widths[99]),
        }

    def canonical(self, choice: ScaledCell) -> ScaledCell:
        """Of several widths that mean the same channels, return the least."""
        same = (width for width in self.widths if channels_at(width, self.channels) == self.channels_of(choice))
        return ScaledCell(branches=choice.branches, width=next(same))

    def channels_of(self, choice: ScaledCell) -> tuple[int, ...]:
        return channels_at(choice.width, self.channels)

    def architecture(self, choice: ScaledCell, classes: int) -> Architecture:
        g = Builder("scaled")
        x = image = g.input()
        for i, (op, channels) in enumerate(zip(choice.branches, self.channels_of(choice), strict=True)):
            x = g.add(f"body.conv{i}", Conv(out_channels=channels, kernel=2 * op + 1), x)
        return g.build(g.add("head.upsample", Resize(), g.add("head.logits", logits1x1(classes), x), image))

    def costs(self, choice: ScaledCell, classes: int = 3, pixels: int = 64 * 64) -> Costs:
        """Count what the network has, without building it; convolutions have a norm of two parameters a channel."""
        wide = self.channels_of(choice)
        kernels = [(2 * op + 1) ** 2 for op in choice.branches]
        weights = [k * before * after for k, before, after in zip(kernels, (3, *wide), wide, strict=False)]
        logits = wide[-1] * classes
        return Costs(madds=pixels * (sum(weights) + logits), params=sum(weights) + 2 * sum(wide) + logits + classes)

    def within(self, limits: Limits) -> Callable[[ScaledCell], Candidate]:
        """Return what describes a choice as a candidate of a search within limits."""

        def describe(choice: ScaledCell) -> Candidate:
            key = "-".join(map(str, (*choice.branches, choice.width)))
            constraints = limits.constraints(self.costs(choice))
            return Candidate(key=key, choice=choice.model_dump(mode="json"), constraints=constraints)

        return describe


def region_of(
    space: Space[Any],
    constraints: Callable[[Any], Mapping[str, float]] = lambda _: {},
    params: Callable[[Any], float] = lambda choice: float(1 + sum(choice.branches)),
) -> Region:
    return Region.of(Fitting(space, constraints), params)


def key_of(choice: Cell) -> str:
    return "-".join(str(op) for op in sorted(choice.branches))


def candidate_of(choice: Cell) -> Candidate:
    return Candidate(key=key_of(choice), choice=choice.model_dump(mode="json"))


def true_miou(candidate: Candidate, step: int, seed: int = 0) -> float:
    """Rises with the step; near the middle operators is best; a fixed disturbance that shrinks with the step."""
    branches = candidate.choice["branches"]
    quality = 1 - sum(abs(op - 2) for op in branches) / (10 * len(branches))
    noise = random.Random(f"{candidate.key}/{step}/{seed}").uniform(-1, 1) / (10 + step)
    return 0.9 * quality * step / (step + 50) + 0.1 * noise


class MadeUpWorker:
    """Trains nothing; candidates whose key is in `broken` diverge, and relaxations with a seed in `broken_seeds`."""

    def __init__(self, broken: frozenset[str] = frozenset(), broken_seeds: frozenset[int] = frozenset()) -> None:
        self.broken, self.broken_seeds = broken, broken_seeds
        self.jobs: list[Job] = []

    def run(self, job: Job) -> JobResult:
        self.jobs.append(job)
        if job.task == "relax":
            if job.seed in self.broken_seeds:
                return JobResult.failed(job, "loss is nan")
            found = CellSpace().sample(random.Random(f"relax {job.seed}")).model_dump(mode="json")
            return JobResult(job=job, outcomes=(), seconds=1.0, found=(found,))
        return JobResult(job=job, outcomes=tuple(self._outcome(c, job) for c in job.candidates), seconds=1.0)

    def _outcome(self, candidate: Candidate, job: Job) -> Outcome:
        if candidate.key in self.broken:
            return Outcome(key=candidate.key, status="nonfinite", step=job.start_step, message="loss is nan")
        miou = true_miou(candidate, job.stop_step, job.seed)
        return Outcome(
            key=candidate.key, status="ok", step=job.stop_step, miou=miou, class_iou=(miou, None), madds=100, params=10
        )
