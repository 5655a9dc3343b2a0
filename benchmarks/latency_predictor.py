"""The error of a latency table on networks that its calibration has not seen, compared with MAdds and parameters.

    python benchmarks/latency_predictor.py --space dpc --space auto_deeplab --device cuda --size 512x1024

For each space a table is made as by `nasseg profile`, or read from `--table` (one per space, in order). Then random
networks other than those of the calibration are measured under the table's conditions. MAdds and parameters predict
by their best line on the calibration's networks, measured in the same turns. The last row is a second measurement of
the same networks: no prediction can be expected to come closer.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nasseg import plugins
from nasseg.cli.options import parse_size, say
from nasseg.cli.profile import points_of, samples
from nasseg.cost.calibration import PredictionError
from nasseg.cost.latency import default_dtype, device_name
from nasseg.cost.latency_table import Conditions, LatencyTable
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
    print(f"{'space':20} {'predictor':14} {'Spearman':>9} {'MAPE':>8}   of {arguments.networks} networks")
    for index, space in enumerate(arguments.space or ["dpc", "auto_deeplab"]):
        result = measure(space, arguments.table[index : index + 1], conditions, device, arguments)
        results.append(result)
        for name, error in result["predictors"].items():
            print(f"{space:20} {name:14} {error['spearman']:9.4f} {error['mape_percent']:7.2f}%", flush=True)
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
    predicted["measured again"] = time_networks(unseen, table.conditions, device, seconds)
    errors = {name: PredictionError.of(values, unseen_ms).model_dump() for name, values in predicted.items()}
    return {
        "space": space,
        "operators": len(table.entries),
        "calibration": table.calibration.model_dump(),
        "own_error": table.error.model_dump(),
        "predictors": errors,
        "measured_ms": unseen_ms,
        "predicted_ms": predicted["table"],
    }


def costs(networks: Sequence[Architecture], name: str, size: tuple[int, int]) -> list[float]:
    """List the `madds` or `params` of each network."""
    return [float(getattr(network.describe(size), name)) for network in networks]


if __name__ == "__main__":
    main()
