"""A search small enough for a test: a space of networks with one layer each side of the cut, on a few small images."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nasseg.cost import op_madds
from nasseg.cost.calibration import Calibration, PredictionError
from nasseg.cost.latency_table import Conditions, Entry, LatencyTable, operators_of
from nasseg.graph import Architecture, Builder
from nasseg.ops import Conv, Dropout, Resize, logits1x1
from nasseg.planning.budget import Budget
from nasseg.planning.config import Plan, SearchConfig
from nasseg.space import Choice, Decide, Space
from nasseg.space.relaxation import OpCost, Relaxation, RelaxationOptions
from nasseg.space.weighted_graph import WeightedEdge, WeightedGraph, WeightedNode
from nasseg.train.recipes import short
from nasseg.train.relaxation.recipe import RelaxationRecipe

SPACE = "tests.jobs.tiny:TinySpace"
DATA = "streets:size=64x96,train=8,val=4,test=4"
KERNELS = (1, 3, 5)
RUNGS = (2, 6)


class Head(Choice):
    kernel: int
    channels: int


class TinySpace(Space[Head]):
    """A convolution of some kernel and channels on the features of a small backbone, which they share if `shared`."""

    shared: bool = True

    @property
    def shared_stage(self) -> str | None:
        return "backbone" if self.shared else None

    def decisions(self, decide: Decide) -> None:
        decide.ordered("kernel", KERNELS)
        decide.ordered("channels", range(1, 17))

    def references(self) -> dict[str, Head]:
        return {"plain": Head(kernel=1, channels=4), "wide": Head(kernel=5, channels=16)}

    def architecture(self, choice: Head, classes: int) -> Architecture:
        g = Builder("tiny")
        image = g.input()
        stem = g.add("backbone.stem", Conv(out_channels=8, stride=2), image)
        features = g.add("backbone.body", Conv(out_channels=12, stride=4), stem)
        x = g.add("cell.conv", Conv(out_channels=choice.channels, kernel=choice.kernel), features)
        dropped = g.add("cell.dropout", Dropout(probability=0.1), x)
        logits = g.add("head.logits", logits1x1(classes), dropped)
        return g.build(g.add("head.upsample", Resize(), logits, image))

    def relaxation(self, classes: int, options: RelaxationOptions) -> TinyRelaxation:
        return TinyRelaxation(self, classes)


class ScaledTinySpace(TinySpace):
    """The same, with the channels as its dial."""

    dial: ClassVar[str] = "channels"


class TinyRelaxation(Relaxation[Head]):
    """The space's networks with 16 channels, all at once: α weighs the outputs of their convolutions."""

    def __init__(self, space: TinySpace, classes: int) -> None:
        super().__init__()
        choices = [Head(kernel=kernel, channels=16) for kernel in KERNELS]
        networks = [space.architecture(choice, classes).network() for choice in choices]
        self.backbone, self.head = (networks[0].get_submodule(name) for name in ("backbone", "head.logits"))
        self.convolutions = nn.ModuleList(network.get_submodule("cell.conv") for network in networks)
        self.dropout = nn.Dropout(0.1)
        self.alpha = nn.Parameter(1e-3 * torch.randn(len(KERNELS)))
        self.costs = torch.zeros(len(KERNELS))

    @property
    def mixture(self) -> Tensor:
        return self.alpha.softmax(0)

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone.get_submodule("body")(self.backbone.get_submodule("stem")(images))
        mixed = [weight * conv(features) for weight, conv in zip(self.mixture, self.convolutions, strict=True)]
        logits = self.head(self.dropout(torch.stack(mixed).sum(0)))
        return nn.functional.interpolate(logits, images.shape[-2:], mode="bilinear")

    def architecture_parameters(self) -> list[nn.Parameter]:
        return [self.alpha]

    def price(self, cost: OpCost, size: tuple[int, int], fixed: float = 0.0) -> None:
        shape = (12, -(-size[0] // 8), -(-size[1] // 8))
        operators = [Conv(out_channels=16, kernel=kernel) for kernel in KERNELS]
        self.costs = torch.tensor([fixed + float(cost(operator, [shape])) for operator in operators])

    def expected_cost(self) -> Tensor:
        return (self.mixture * self.costs.to(self.alpha.device)).sum()

    def decode(self) -> Head:
        return Head(kernel=KERNELS[int(self.alpha.argmax())], channels=16)

    def graphs(self) -> tuple[WeightedGraph, ...]:
        best, weights = int(self.alpha.argmax()), self.mixture.tolist()
        nodes = [WeightedNode(name=name, column=i, row=0, label=name) for i, name in enumerate(("body", "cell"))]
        edges = [
            WeightedEdge(source="body", target="cell", weight=weight, label=f"{kernel}", chosen=i == best)
            for i, (kernel, weight) in enumerate(zip(KERNELS, weights, strict=True))
        ]
        return (WeightedGraph(name="cell", title="α", nodes=tuple(nodes), edges=tuple(edges)),)


def latency_table(size: tuple[int, int], classes: int) -> LatencyTable:
    """A table in which operators take a nanosecond a multiply–add, and one of the device of no machine."""
    space = TinySpace()
    every = [Head(kernel=kernel, channels=channels) for kernel in KERNELS for channels in range(1, 17)]
    found = {operator for choice in every for operator in operators_of(space.architecture(choice, classes), size)}
    times = {operator: 1e-6 * (1 + op_madds(operator.op, operator.inputs)) for operator in found}
    return LatencyTable(
        space=SPACE,
        conditions=Conditions(device="a phone", dtype="float16", backend="eager", batch=1, size=size, threads=1),
        operators_found=len(found),
        calibration=Calibration(fixed_ms=1.0),
        error=PredictionError(networks=30, spearman=0.99, mape_percent=1.5),
        entries=tuple(Entry(operator=o, median_ms=ms, low_ms=ms, high_ms=ms) for o, ms in times.items()),
    )


def tiny_plan(**changes: Any) -> Plan:
    dials: dict[str, Any] = {
        "image_scale": 1.0,
        "rungs": RUNGS,
        "full_steps": 4,
        "candidates": 5,
        "finalists": 1,
        "seeds": 2,
        "proxy_share": 1.0,
        "views": 2,
        "concurrency": 1,
        "threads": 1,
        "proxy_recipe": short(steps=RUNGS[-1], crop=(64, 96), batch_size=4),
        "full_recipe": short(steps=4, crop=(64, 96), batch_size=4),
    }
    return Plan(**{**dials, **changes})


def gradient_plan(**changes: Any) -> Plan:
    recipe = RelaxationRecipe(steps=4, batch_size=2, crop=(32, 48), cost_weight=-0.07, amp=False)
    return tiny_plan(**{"relaxations": 2, "relax_steps": 4, "relax_recipe": recipe, **changes})


def gradient_config(space: str = SPACE, **plan: Any) -> SearchConfig:
    changes = {"strategy": "gradient", "plan": gradient_plan(**plan)}
    return tiny_config(space=space).model_copy(update=changes)


def tiny_config(budget: str = "5trials", space: str = SPACE, runner: Any = "in-process", **plan: Any) -> SearchConfig:
    return SearchConfig(
        budget=Budget.parse(budget),
        space=space,
        data=DATA,
        runner=runner,
        sampler="random",
        objective="score",
        device="cpu",
        plan=tiny_plan(**plan),
    )
