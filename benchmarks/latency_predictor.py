"""The error of a latency table on networks that its calibration has not seen, compared with MAdds and parameters.

    python benchmarks/latency_predictor.py --space dpc --space auto_deeplab --device cuda --size 512x1024

For each space a table is made as by `nasseg profile`, or read from `--table` (one per space, in order). Then random
networks other than those of the calibration are measured under the table's conditions. MAdds and parameters predict
by their best line on the calibration's networks, measured in the same turns. The last row is a second measurement of
the same networks: no prediction can be expected to come closer.

In a space whose operators' shapes have no end, most operators are predicted too. There the row `costs alone` predicts
them by least squares from MAdds and values moved alone, calibrated on the same networks:

    python benchmarks/latency_predictor.py --space benchmarks.reshaped:Reshaped --size 180x240 --threads 1 --minutes 3
"""

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nasseg import plugins
from nasseg.cli.options import parse_size, say
from nasseg.cost.calibration import Calibration, MeasuredNetwork, PredictionError, non_negative_least_squares
from nasseg.cost.describe import operator_cost
from nasseg.cost.design import points_of, samples
from nasseg.cost.latency import default_dtype, device_name
from nasseg.cost.latency_table import Conditions, LatencyTable, Operator, operators_of
from nasseg.cost.profile import profile, time_networks
from nasseg.graph import Architecture
from nasseg.train.device import choose_device

CLASSES = 19


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", action="append", help="a space (several allowed); dpc and auto_deeplab if not given")
    parser.add_argument("--table", action="append", default=[], type=Path, help="its table, in the same order")
    parser.add_argument("--networks", type=int, default=60, help="networks to predict, of each space")
    parser.add_argument("--calibration", type=int, default=30, help="networks of the calibration")
    parser.add_argument("--size", default="512x1024")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", help="float16 on CUDA if not given, else float32")
    parser.add_argument("--backend", default="eager")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--minutes", type=float, default=10.0, help="for a table, for the networks, and for them again")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    conditions = Conditions(
        device=device_name(device),
        dtype=arguments.dtype or default_dtype(device),
        backend=arguments.backend,
        batch=1,
        size=parse_size(arguments.size),
        threads=arguments.threads,
    )
    results = []
    print(
        f"{device_name(device)}, {arguments.size}, {conditions.dtype}, {arguments.backend}, {arguments.threads} threads"
    )
    print(
        f"{'space':20} {'predictor':14} {'Spearman':>9} {'MAPE':>8} {'worst':>8} {'within 5%':>9}   "
        f"of {arguments.networks} networks"
    )
    for index, space in enumerate(arguments.space or ["dpc", "auto_deeplab"]):
        result = measure(space, arguments.table[index : index + 1], conditions, device, arguments)
        results.append(result)
        for name, error in result["predictors"].items():
            print(
                f"{space:20} {name:14} {error['spearman']:9.4f} {error['mape_percent']:7.2f}% "
                f"{error['worst_percent']:7.2f}% {error['within_5_percent']:9.0%}",
                flush=True,
            )
    print(json.dumps({"conditions": conditions.model_dump(mode="json"), "results": results}))


def measure(
    space: str, tables: Sequence[Path], conditions: Conditions, device: torch.device, arguments: argparse.Namespace
) -> dict[str, Any]:
    points, seconds = plugins.space(space, named_by_user=space), arguments.minutes * 60
    known = samples(points, CLASSES, arguments.calibration)
    if tables:
        table = LatencyTable.load(tables[0])
        table.check(conditions.size, conditions.dtype)
    else:
        with tempfile.TemporaryDirectory() as folder:
            table = profile(
                space,
                points_of(points, CLASSES),
                known,
                conditions,
                device,
                Path(folder, "table.json"),
                limit_seconds=seconds,
                on_progress=lambda what, done, of: say(f"{space}: {what} {done} of {of}"),
            )
    unseen = samples(points, CLASSES, arguments.networks, seed="unseen")
    say(f"{space}: measuring {len(known) + len(unseen)} whole networks")
    measured = time_networks([*known, *unseen], table.conditions, device, seconds)
    known_ms, unseen_ms = measured[: len(known)], measured[len(known) :]
    predicted = {"table": [table.latency_ms(network) for network in unseen]}
    for name in ("madds", "params"):
        line = np.polyfit(costs(known, name, conditions.size), known_ms, 1)
        predicted[name] = np.polyval(line, costs(unseen, name, conditions.size)).tolist()
    if table.interpolates:
        predicted["costs alone"] = by_costs_alone(table, known, known_ms, unseen)
    predicted["measured again"] = time_networks(unseen, table.conditions, device, seconds)
    errors = {name: errors_of(values, unseen_ms) for name, values in predicted.items()}
    return {
        "space": space,
        "operators": len(table.entries),
        "calibration": table.calibration.model_dump(),
        "own_error": table.error.model_dump(),
        "predictors": errors,
        "measured_ms": unseen_ms,
        "predicted_ms": predicted["table"],
    }


def errors_of(predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> dict[str, float]:
    """Compare predictions with measurements: also the worst, and the share of those within 5 %."""
    errors = np.abs(np.asarray(predicted_ms) / np.asarray(measured_ms) - 1)
    error = PredictionError.of(predicted_ms, measured_ms).model_dump()
    return {**error, "worst_percent": float(errors.max()) * 100, "within_5_percent": float((errors <= 0.05).mean())}


def by_costs_alone(
    table: LatencyTable, known: Sequence[Architecture], known_ms: Sequence[float], unseen: Sequence[Architecture]
) -> list[float]:
    """Predict as the table does, but operators that were not measured by a line through their kind's costs."""
    by_kind: dict[str, list[tuple[Operator, float]]] = {}
    for entry in table.entries:
        by_kind.setdefault(entry.operator.op.op, []).append((entry.operator, entry.median_ms))
    lines = {}
    for kind, group in by_kind.items():
        times = np.array([ms for _, ms in group])
        terms = np.array([terms_of(operator) for operator, _ in group])
        lines[kind] = np.array(non_negative_least_squares(terms / times[:, None], np.ones(len(times))))
    measured = {entry.operator: entry.median_ms for entry in table.entries}

    def with_sum(network: Architecture, latency_ms: float) -> MeasuredNetwork:
        operators = operators_of(network, table.conditions.size)
        times = [measured[o] if o in measured else float(terms_of(o) @ lines[o.op.op]) for o in operators]
        return MeasuredNetwork(operators_ms=sum(times), nodes=len(operators), latency_ms=latency_ms)

    calibration = Calibration.fit([with_sum(*pair) for pair in zip(known, known_ms, strict=True)])
    sums = [with_sum(network, 1.0) for network in unseen]
    return [calibration.latency_ms(network.operators_ms, network.nodes) for network in sums]


def terms_of(operator: Operator) -> NDArray[np.float64]:
    """Billions of MAdds, millions of values moved, and a constant."""
    cost = operator_cost(operator.op, operator.inputs)
    values = cost.weights + sum(map(math.prod, (*operator.inputs, cost.shape)))
    return np.array([cost.madds / 1e9, values / 1e6, 1.0])


def costs(networks: Sequence[Architecture], name: str, size: tuple[int, int]) -> list[float]:
    """List the `madds` or `params` of each network."""
    return [float(getattr(network.describe(size), name)) for network in networks]


if __name__ == "__main__":
    main()
