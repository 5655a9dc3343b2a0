"""A cell space in miniature, and a made-up trainer whose scores are a pure function of the choice and the step."""

from __future__ import annotations

import random
from typing import ClassVar

from nasseg.graph import Architecture
from nasseg.planning.job import Candidate, Job, JobResult, Outcome
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
