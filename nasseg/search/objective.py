"""One score from accuracy and cost."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Objective(BaseModel):
    """Mean IoU weighed against cost, relative to a reference's.

    score = mIoU · (cost / reference_cost) ** weight. With the default weight of -0.07, doubling the cost must bring 5 %
    more mIoU to be worth it; 0 ignores the cost. Any cost will do as long as the unit is the same: multiply-adds,
    milliseconds, parameters.

    Source: Tan et al., MnasNet, CVPR 2019, section 3.1, equations 2 and 3.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(default=-0.07, le=0)
    reference_cost: float = Field(gt=0)

    def score(self, miou: float, cost: float) -> float:
        """The score of a network; raises `ValueError` where `cost` is not positive."""
        if cost <= 0:
            raise ValueError(f"cost is {cost}; must be more than 0")
        return float(miou * (cost / self.reference_cost) ** self.weight)
