"""The cost of a network: parameters, MAdds, latency, memory."""

from nasseg.cost.describe import Description, NodeCost, StageCost, describe, op_madds
from nasseg.cost.latency import Latency, measure_latency
from nasseg.cost.memory import peak_memory_bytes

__all__ = [
    "Description",
    "Latency",
    "NodeCost",
    "StageCost",
    "describe",
    "measure_latency",
    "op_madds",
    "peak_memory_bytes",
]
