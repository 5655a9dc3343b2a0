"""A search that never was: five candidates, two rungs, two of them trained end to end."""

import math
import random
from typing import Any

from baselines.dense_prediction_cell import ASPP, PUBLISHED, Cell
from nasseg.cost.latency import Latency
from nasseg.planning.candidates import Trial
from nasseg.planning.job import Candidate, Outcome
from nasseg.report.rows import Row, make_row
from nasseg.space.weighted_graph import WeightedEdge, WeightedGraph, WeightedNode
from nasseg.train.relaxation.trainer import RelaxationSnapshot
from search_spaces.auto_deeplab.operators import OPERATORS
from search_spaces.dpc import DPC

SPACE = DPC()
RUNGS = (100, 300)


def candidate(cell: Cell, key: str, label: str | None = None) -> Candidate:
    return Candidate(key=key, choice=cell.model_dump(mode="json", exclude_none=True), label=label)


def ok(key: str, step: int, miou: float, madds: int = 2_000_000_000) -> Outcome:
    return Outcome(
        key=key, status="ok", step=step, miou=miou, class_iou=(miou, None, miou / 2), madds=madds, params=3_500_000
    )


def make_trials() -> list[Trial]:
    found = Cell(branches=(PUBLISHED.branches[0], *ASPP.branches[:4]))
    aspp, best, stopped, broken = "a" * 20, "b" * 20, "c" * 20, "d" * 20
    nan = Outcome(key=broken, status="nonfinite", step=37, message="the loss is nan at step 37")
    return [
        Trial(
            candidate(ASPP, aspp, "aspp"),
            ASPP,
            proxy={100: ok(aspp, 100, 0.5), 300: ok(aspp, 300, 0.6)},
            full={0: ok(aspp, 900, 0.7), 1: ok(aspp, 900, 0.72)},
        ),
        Trial(
            candidate(found, best),
            found,
            proxy={100: ok(best, 100, 0.55, 1_000_000_000), 300: ok(best, 300, 0.65, 1_000_000_000)},
            full={0: ok(best, 900, 0.75, 1_000_000_000), 1: ok(best, 900, 0.77, 1_000_000_000)},
        ),
        Trial(candidate(PUBLISHED, stopped), PUBLISHED, proxy={100: ok(stopped, 100, 0.4)}),
        Trial(candidate(SPACE.canonical(PUBLISHED), broken), PUBLISHED, proxy={37: nan}),
        Trial(candidate(PUBLISHED, "e" * 20), PUBLISHED),
    ]


CONDITIONS: dict[str, Any] = {"device": "TestChip 9", "dtype": "float32", "batch": 1, "threads": 2, "torch": "2.13"}


def latency(median_ms: float) -> Latency:
    return Latency(median_ms=median_ms, p95_ms=median_ms + 1, runs=20, size=(160, 320), **CONDITIONS)


def rows() -> list[Row]:
    latencies = {"a" * 20: latency(30.0), "b" * 20: latency(20.0)}
    return [make_row(trial, RUNGS[-1], trial.miou, latencies.get(trial.key)) for trial in make_trials()]


def trellis(layers: int = 12, levels: int = 4, seed: int = 0) -> WeightedGraph:
    """A stem and layers of strides, with β from random logits and the path that follows the strongest."""
    draw = random.Random(seed)
    nodes = [WeightedNode(name="stem", column=0, row=0, label="stem")]
    edges = []
    path_level = 0
    for layer in range(1, layers + 1):
        nodes += [
            WeightedNode(name=f"{layer}.{level}", column=layer, row=level, label=str(4 << level))
            for level in range(min(layer + 1, levels))
        ]
        chosen = {}
        for level in range(min(layer, levels)):
            goals = [goal for goal in (level - 1, level, level + 1) if 0 <= goal < levels]
            weights = _softmax([draw.gauss(0, 1.5) for _ in goals])
            chosen[level] = goals[weights.index(max(weights))]
            source = "stem" if layer == 1 else f"{layer - 1}.{level}"
            for goal, weight in zip(goals, weights, strict=True):
                on_path = level == path_level and goal == chosen[level]
                edges.append(WeightedEdge(source=source, target=f"{layer}.{goal}", weight=weight, chosen=on_path))
        path_level = chosen[path_level]
    return WeightedGraph(name="network", title="β of the network", nodes=tuple(nodes), edges=tuple(edges))


def cell_graph(blocks: int = 5, seed: int = 0) -> WeightedGraph:
    """The edges of a cell with α from random logits; each block keeps its two strongest."""
    draw = random.Random(seed)
    names = ["H l-1", "H l-2", *(f"block {block + 1}" for block in range(blocks))]
    edges: list[WeightedEdge] = []
    for block in range(blocks):
        alphas = {source: _softmax([draw.gauss(0, 1) for _ in OPERATORS]) for source in names[: block + 2]}
        best = sorted(alphas, key=lambda source: max(alphas[source][:-1]))[-2:]
        for source, weights in alphas.items():
            ends, strongest = {"source": source, "target": names[block + 2]}, max(weights[:-1])
            for label, weight in zip(OPERATORS, weights, strict=True):
                kept = source in best and weight == strongest
                edges.append(WeightedEdge(**ends, weight=weight, label=label, chosen=kept))
    nodes = tuple(WeightedNode(name=name, column=index, row=0, label=name) for index, name in enumerate(names))
    return WeightedGraph(name="cell", title="α of the cell", nodes=nodes, edges=tuple(edges))


def _softmax(logits: list[float]) -> list[float]:
    exponentials = [math.exp(logit) for logit in logits]
    return [value / sum(exponentials) for value in exponentials]


def snapshot(seed: int = 0, step: int = 100) -> RelaxationSnapshot:
    """Before half of its steps a relaxation has no architecture loss."""
    return RelaxationSnapshot(
        seed=seed,
        step=step,
        steps=400,
        train_loss=2.5 - step / 400,
        architecture_loss=None if step < 200 else 2.0,
        expected_cost=4e9,
        graphs=(trellis(layers=3, seed=seed), cell_graph(blocks=2, seed=seed)),
        choice={"levels": [0]},
    )
