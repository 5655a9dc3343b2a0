"""A latency table of a small network, with times that are easy to add up."""

from nasseg.cost.calibration import Calibration, PredictionError
from nasseg.cost.latency_table import Conditions, Entry, LatencyTable, Operator, operators_of
from nasseg.graph import Architecture, Builder
from nasseg.ops import Conv, Resize, conv1x1, logits1x1

SIZE = (8, 12)
CONDITIONS = Conditions(device="a device", dtype="float32", backend="eager", batch=1, size=SIZE, threads=1)


def network(*widths: int) -> Architecture:
    """Stride 2, then one 1×1 convolution per width, then the logits; another output in training only."""
    g = Builder("network")
    image = g.input()
    x = g.add("stem", Conv(out_channels=4, stride=2), image)
    aside = g.add("aside", logits1x1(7), x)
    for index, width in enumerate(widths):
        x = g.add(f"conv{index}", conv1x1(width), x)
    return g.build(g.add("head", Resize(), g.add("logits", logits1x1(2), x), image), training_outputs=(aside,))


def entry(operator: Operator, ms: float) -> Entry:
    return Entry(operator=operator, median_ms=ms, low_ms=ms, high_ms=ms)


def table(architecture: Architecture, *times_ms: float, found: int | None = None) -> LatencyTable:
    """The distinct operators of `architecture`, in the order of computation, with these times."""
    operators = dict.fromkeys(operators_of(architecture, SIZE))
    entries = tuple(entry(operator, ms) for operator, ms in zip(operators, times_ms, strict=True))
    return LatencyTable(
        space="a space",
        conditions=CONDITIONS,
        operators_found=found or len(entries),
        calibration=Calibration(scale=2.0, per_node_ms=0.5, fixed_ms=10.0),
        error=PredictionError(networks=30, spearman=0.99, mape_percent=1.5),
        entries=entries,
    )
