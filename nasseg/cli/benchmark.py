"""`nasseg benchmark`: careful measurement of networks' latency."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nasseg.cli.options import Config, Device, Json, SpaceOfFile, newest_best, parse_size, print_json, say

if TYPE_CHECKING:
    from nasseg.cost import Latency

REPEATABLE = 0.03
"""Results on a quiet machine agree within this share."""
EXPORTED = "exported"
"""The backend of exported files: their own."""


class Costs(NamedTuple):
    """What is printed of a network beside its latency."""

    name: str
    params: int
    madds: int


def _newest_bests(archs: list[str]) -> list[str]:
    return [newest_best(arch) for arch in archs]


Archs = Annotated[
    list[str],
    typer.Argument(
        help="Architecture files, run folders, names such as stdc1, or exported .onnx files.",
        metavar="ARCH…",
        callback=_newest_bests,
    ),
]


def benchmark(
    archs: Archs,
    size: Annotated[str, typer.Option(help="Image size, HEIGHTxWIDTH.")] = "512x1024",
    batch: Annotated[int, typer.Option(help="Images per run.", min=1)] = 1,
    backend: Annotated[
        str, typer.Option(help="eager, compile, onnxruntime, openvino, tensorrt; several joined by commas.")
    ] = "eager",
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16; float16 on CUDA if not given, else float32.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the processor; PyTorch's if not given.", min=1)
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Classes of networks given by name (19).", min=1)] = None,
    processes: Annotated[int, typer.Option(help="Fresh processes to measure in, one after the other.", min=1)] = 3,
    space: SpaceOfFile = None,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Write the results to this JSON file too.")] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Measure the latency of networks in inference form, in turn, until the medians are certain.

    Batch norm is folded, the layout is channels last, and on CUDA the kernels form one graph. Choose the backend,
    number format and threads that you ship with; an exported file has its own. Close other programs. Results of several
    fresh processes are pooled, and you are told if they disagree.
    """
    import json

    import torch

    from nasseg import plugins
    from nasseg.cost.backends import choose_backend
    from nasseg.cost.latency import THOROUGH, default_dtype, measure_latency_afresh
    from nasseg.export.latency import measure_exported_afresh
    from nasseg.graph import write_atomically
    from nasseg.train.device import choose_device

    pixels, target = parse_size(size), choose_device(device)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    dtype = dtype or default_dtype(target)
    if threads is not None:
        torch.set_num_threads(threads)
    files = {arch: Path(arch) for arch in archs if Path(arch).suffix == ".onnx"}
    costs = _costs_of(files, pixels, batch)
    networks = {
        arch: plugins.architecture(arch, classes, named_by_user=space).inference()
        for arch in archs
        if arch not in files
    }
    backends = backend.split(",") if networks else []
    for name in backends:
        choose_backend(name, target, dtype)
    for arch, network in networks.items():
        if classes not in (None, network.classes):
            raise ValueError(f"{arch} has {network.classes} classes; --classes is for networks given by name")
        description = network.describe(pixels)
        costs[arch] = Costs(description.name, description.params, description.madds)

    def measure(name: str) -> dict[str, Latency]:
        if name == EXPORTED:
            return measure_exported_afresh(files, pixels, THOROUGH)
        return measure_latency_afresh(networks, pixels, target, batch=batch, dtype=dtype, backend=name, stop=THOROUGH)

    backends += [EXPORTED] if files else []
    measured = _measure_in_turn(measure, backends, processes, f"{len(archs)} network{'s' * (len(archs) > 1)} at {size}")
    for name in backends:
        for warning in _warnings(measured[name]):
            say(f"{name}: {warning}")
    results = [
        {"arch": arch, **costs[arch]._asdict(), "fps": latency.fps, "latency": latency.model_dump(mode="json")}
        for by_arch in measured.values()
        for arch, latency in by_arch.items()
    ]
    if as_json:
        print_json(results)
    else:
        _print_table(measured, costs)
    if out is not None:
        write_atomically(out, json.dumps(results, indent=1) + "\n")


def _costs_of(files: dict[str, Path], size: tuple[int, int], batch: int) -> dict[str, Costs]:
    """Read what exported files say of themselves; raises `ValueError` if they do not take such images."""
    from nasseg.export.files import OnnxNetwork

    if files and batch != 1:
        raise ValueError(f"--batch is {batch}, but exported files take one image; leave it out")
    costs = {}
    for arch, path in files.items():
        network = OnnxNetwork.open(path)
        network.check_size(size)
        costs[arch] = Costs(network.info.architecture, network.info.params, network.info.madds)
    return costs


def _measure_in_turn(
    measure: Callable[[str], dict[str, Latency]], backends: list[str], processes: int, what: str
) -> dict[str, dict[str, Latency]]:
    """Measure latencies by backend and network, pooled over processes, each of which takes all backends in turn."""
    from nasseg.cost.latency import Latency

    runs: dict[str, list[dict[str, Latency]]] = {name: [] for name in backends}
    for process in range(1, processes + 1):
        for name in backends:
            say(f"{name}, process {process} of {processes}: {what}")
            runs[name].append(measure(name))
    return {
        name: {arch: Latency.pooled([run[arch] for run in of_backend]) for arch in of_backend[0]}
        for name, of_backend in runs.items()
    }


def _warnings(measured: dict[str, Latency]) -> Iterator[str]:
    """Yield reasons why a repetition may give another result."""
    from nasseg.cost.load import BUSY_LOAD

    load = next(iter(measured.values())).others_load
    if load is not None and load > BUSY_LOAD:
        yield f"the device is busy: other programs used {load:.0%} of it; end them and measure again"
    for arch, latency in measured.items():
        if not latency.settled:
            yield f"{arch} did not settle: ±{latency.relative_interval or 0:.1%} after {latency.runs} runs"
        elif latency.drift is not None and latency.drift > REPEATABLE:
            yield f"{arch} drifted by {latency.drift:.1%} while it was measured; a repetition may differ as much"


def _print_table(measured: dict[str, dict[str, Latency]], costs: dict[str, Costs]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    first = next(iter(next(iter(measured.values())).values()))
    on_gpu = first.peak_memory_gib is not None
    memory_column = ["GiB"] if on_gpu else []
    columns = ["backend", "median ms", "±", "p95 ms", "FPS", "G MAdds", "M params", *memory_column]
    table = Table(Column("network", overflow="fold"), *columns)
    for column in table.columns[2:]:
        column.justify = "right"
    for name, by_arch in measured.items():
        for arch, latency in by_arch.items():
            memory = latency.peak_memory_gib
            table.add_row(
                arch,
                name,
                f"{latency.median_ms:.2f}",
                f"{latency.relative_interval or 0:.1%}",
                f"{latency.p95_ms:.2f}",
                f"{latency.fps:.1f}",
                f"{costs[arch].madds / 1e9:.2f}",
                f"{costs[arch].params / 1e6:.2f}",
                *(["–" if memory is None else f"{memory:.2f}"] if on_gpu else []),
            )
    console = Console(markup=False)
    console.print(table)
    height, width = first.size
    console.print(
        f"{first.device}, {first.dtype}, batch {first.batch}, {height}x{width}, {first.threads} "
        f"thread{'s' if first.threads > 1 else ''}, torch {first.torch}; medians of {first.processes} "
        f"process{'es' if first.processes > 1 else ''} with the ends of their 95 % intervals"
    )
