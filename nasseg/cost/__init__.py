"""What a network costs: parameters, MAdds, latency."""

from nasseg.cost.describe import Description, NodeCost, StageCost, describe

__all__ = ["Description", "NodeCost", "StageCost", "describe"]
