"""Costs of networks before they are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nasseg.cost import op_madds, peak_memory_bytes
from nasseg.cost.describe import Shape
from nasseg.cost.latency_table import LatencyTable
from nasseg.graph import Architecture
from nasseg.ops import Op
from nasseg.planning.job import Costs
from nasseg.planning.limits import Limits

MOST_KNOWN = 10_000
"""Networks whose costs are kept; a proposal may price hundreds."""


@dataclass(frozen=True)
class Pricing:
    """The costs of networks for images of `size` (height, width), and their distances from the limits.

    Latency is predicted by `table`. Memory is computed only if limited: at the table's batch and number format, else
    for one image in float32.
    """

    size: tuple[int, int]
    limits: Limits = field(default_factory=Limits)
    table: LatencyTable | None = None
    _known: dict[str, Costs] = field(default_factory=dict, repr=False, compare=False)

    def costs(self, architecture: Architecture) -> Costs:
        """Compute the costs of a network; the latency is `None` if the table lacks one of its operators."""
        if architecture.key not in self._known:
            if len(self._known) == MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[architecture.key] = self._count(architecture)
        return self._known[architecture.key]

    def _count(self, architecture: Architecture) -> Costs:
        description = architecture.describe(self.size)
        latency_ms = None if self.table is None else self.table.latency_ms_if_known(architecture)
        memory_bytes = None
        if self.limits.memory_bytes is not None:
            under = self.table.conditions.model_dump(include={"batch", "dtype"}) if self.table is not None else {}
            memory_bytes = peak_memory_bytes(architecture, self.size, **under)
        return Costs(
            madds=description.madds, params=description.params, latency_ms=latency_ms, memory_bytes=memory_bytes
        )

    def constraints(self, architecture: Architecture) -> dict[str, float]:
        """Compute by what share of itself each limit is exceeded; above 0 it is violated.

        Operators that the table lacks count as another violated limit, as the network's cost is unknown.
        """
        if self.table is not None and self.costs(architecture).latency_ms is None:
            return {"operators not in the latency table": float(len(self.table.missing(architecture)))}
        return self.limits.constraints(self.costs(architecture)) if self.limits.given else {}

    def op_cost(self, op: Op, inputs: Sequence[Shape]) -> float:
        """Compute the cost of one operator on inputs of these shapes: milliseconds by the table, else multiply–adds."""
        return op_madds(op, inputs) if self.table is None else self.table.op_ms(op, inputs)

    @property
    def fixed_cost(self) -> float:
        """The cost of every network beyond its operators, in the unit of `op_cost`."""
        return 0.0 if self.table is None else self.table.calibration.fixed_ms
