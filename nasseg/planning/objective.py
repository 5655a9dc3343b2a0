"""The objective of a search: one score from accuracy and cost, or a front of both."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from nasseg.planning.job import Costs, Outcome
from nasseg.planning.options import Aim


class Objective(BaseModel):
    """Mean IoU weighed against cost, relative to a reference's cost or a target.

    score = mIoU · (cost / reference_cost) ** weight. With the default weight of -0.07, doubling the cost must bring 5 %
    more mIoU to be worth it; 0 ignores the cost. The cost is in multiply–adds or milliseconds, by `unit`.

    With `aim` "pareto", mIoU and cost are two objectives; the score only picks the best network of the front. There,
    costs differ by factors, and a hundredth of the cost would outweigh a third of the mIoU, so cheaper than the
    reference earns nothing: the best is the most accurate that costs no more, unless more is worth it.

    Source: Tan et al., MnasNet, CVPR 2019, section 3.1, equations 2 and 3.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    aim: Aim = "score"
    unit: Literal["MAdds", "ms"] = "MAdds"
    weight: float = Field(default=-0.07, le=0)
    reference_cost: float = Field(gt=0)

    def cost(self, costs: Costs) -> float:
        """Return the cost in `unit`; raises `ValueError` if it is not known."""
        cost = costs.latency_ms if self.unit == "ms" else costs.madds
        if cost is None:
            raise ValueError(f"cost in {self.unit} is not known")
        return cost

    def score(self, miou: float, cost: float) -> float:
        """Compute the score of a network; raises `ValueError` if `cost` is not positive."""
        if cost <= 0:
            raise ValueError(f"cost is {cost}; must be more than 0")
        ratio = cost / self.reference_cost
        return float(miou * (ratio if self.aim == "score" else max(1.0, ratio)) ** self.weight)

    def score_of(self, outcome: Outcome) -> float:
        """Compute the score of an outcome; raises `ValueError` if its mIoU or its cost is not known."""
        return self.score(_miou(outcome), self.cost(outcome))

    def values(self, outcome: Outcome) -> tuple[float, ...]:
        """Compute the objectives, all maximised: the score, or mIoU and the negative log of the cost."""
        if self.aim == "score":
            return (self.score_of(outcome),)
        return _miou(outcome), -math.log(self.cost(outcome))

    @property
    def metrics(self) -> dict[str, str]:
        """The metrics recorded of each trial: Optuna's direction by name."""
        return {"score": "maximize"} if self.aim == "score" else {"mIoU": "maximize", self.unit: "minimize"}

    def metric_values(self, outcome: Outcome) -> tuple[float, ...]:
        """Compute the values of `metrics`, in their order."""
        return (self.score_of(outcome),) if self.aim == "score" else (_miou(outcome), float(self.cost(outcome)))


def _miou(outcome: Outcome) -> float:
    if outcome.miou is None:
        raise ValueError(f"{outcome.key} has no mIoU")
    return outcome.miou
