"""`nasseg profile`: a latency table of a space's operators on this device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasseg.cli.options import INTERRUPTED, Config, Device, Json, parse_size, print_json, say, take_space

if TYPE_CHECKING:
    from nasseg.cost.latency_table import Entry, LatencyTable

SHOWN = 5


def profile(
    out: Annotated[Path, typer.Option(help="JSON file to write the table to.", metavar="TABLE.json")],
    space: Annotated[
        str,
        typer.Option(callback=take_space, help="As in a search: encoder_decoder[:OPTIONS], or package.module:Class."),
    ] = "encoder_decoder",
    device: Device = "auto",
    size: Annotated[str, typer.Option(help="Image size, HEIGHTxWIDTH.")] = "512x1024",
    batch: Annotated[int, typer.Option(help="Images at once.", min=1)] = 1,
    classes: Annotated[int, typer.Option(help="Classes of the networks.", min=1)] = 19,
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16; float16 on CUDA if not given, else float32.")
    ] = None,
    backend: Annotated[str, typer.Option(help="eager, compile, onnxruntime, openvino or tensorrt.")] = "eager",
    threads: Annotated[
        int | None, typer.Option(help="Threads of the processor; PyTorch's if not given.", min=1)
    ] = None,
    networks: Annotated[int, typer.Option(help="Whole networks for the calibration.", min=10)] = 30,
    limit: Annotated[str, typer.Option(help="About how long to measure, like 90s, 10min or 1h.")] = "10min",
    resume: Annotated[bool, typer.Option("--resume", help="Continue a stopped profile.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Measure a space's operators on this device, so that a search anywhere can predict latency here."""
    import torch

    from nasseg import plugins
    from nasseg.cost import design
    from nasseg.cost import profile as engine
    from nasseg.cost.backends import choose_backend
    from nasseg.cost.calibration import POOR
    from nasseg.cost.latency import default_dtype, device_name
    from nasseg.cost.latency_table import Conditions
    from nasseg.cost.load import BUSY_LOAD, OthersLoad
    from nasseg.report.profile import ProfileBars
    from nasseg.train.device import choose_device

    pixels, target, seconds = parse_size(size), choose_device(device), _parse_seconds(limit)
    dtype = dtype or default_dtype(target)
    choose_backend(backend, target, dtype)
    points = plugins.space(space, named_by_user=space)
    _check_out(out, engine.partial_file(out), resume)
    if threads is not None:
        torch.set_num_threads(threads)
    conditions = Conditions.model_validate(
        {
            "device": device_name(target),
            "dtype": dtype,
            "backend": backend,
            "batch": batch,
            "size": pixels,
            "threads": torch.get_num_threads(),
        }
    )
    say(f"looking for the operators of {space} …")
    others = OthersLoad(target)
    try:
        with ProfileBars() as bars:
            table = engine.profile(
                space,
                design.points_of(points, classes),
                design.samples(points, classes, networks),
                conditions,
                target,
                out,
                limit_seconds=seconds,
                resume=resume,
                on_progress=bars.show,
            )
    except KeyboardInterrupt:
        saved = "what was measured is saved. Continue with the same command and --resume"
        say(f"stopped; {saved if engine.partial_file(out).exists() else 'nothing was measured yet'}")
        raise typer.Exit(INTERRUPTED) from None
    say(f"wrote {out}")
    if others.share is not None and others.share > BUSY_LOAD:
        say(f"warning: other programs used {others.share:.0%} of the device; end them and profile again")
    if table.error.is_poor:
        say(
            f"warning: the table is {table.error}; {POOR}: end other programs, fix the clock speed, and profile again, "
            "with a longer --limit and more --networks"
        )
    if as_json:
        print_json(_summary(table))
    else:
        _print(table)


def _check_out(out: Path, partial: Path, resume: bool) -> None:
    """Raise `ValueError`, before anything is measured, if the table could not be written or would overwrite a file."""
    if out.exists():
        raise ValueError(f"{out} exists; remove it, or name another file with --out")
    if not out.parent.is_dir():
        raise ValueError(f"{out.parent} is not a folder; name a file in an existing one with --out")
    if partial.exists() != resume:
        raise ValueError(
            f"{partial} is what a stopped profile left; continue it with --resume, or remove it"
            if not resume
            else f"there is no {partial} to resume; leave --resume out"
        )


def _parse_seconds(text: str) -> float:
    from nasseg.planning.budget import Budget

    budget = Budget.parse(text)
    if budget.unit not in {"h", "min", "s"}:
        raise ValueError(f"limit is {text!r}, but must be a time, like 90s, 10min or 1h")
    return budget.wall_seconds(cores=1, gpus=0)


def _summary(table: LatencyTable) -> dict[str, object]:
    return {
        "space": table.space,
        **table.conditions.model_dump(mode="json"),
        "operators_found": table.operators_found,
        "operators_measured": len(table.entries),
        **{name: value for name, value in table.error.model_dump().items() if name != "networks"},
        "networks": table.error.networks,
        "slowest": [{"operator": str(entry.operator), "ms": entry.median_ms} for entry in _by_time(table)[:SHOWN]],
        "fastest": [{"operator": str(entry.operator), "ms": entry.median_ms} for entry in _by_time(table)[-SHOWN:]],
    }


def _by_time(table: LatencyTable) -> list[Entry]:
    return sorted(table.entries, key=lambda entry: -entry.median_ms)


def _print(table: LatencyTable) -> None:
    from rich.console import Console
    from rich.table import Table

    ordered = _by_time(table)
    rows = Table("operator", "ms", "±")
    for column in rows.columns[1:]:
        column.justify = "right"
    for place, entry in enumerate(ordered):
        if place < SHOWN or place >= len(ordered) - SHOWN:
            spread = (entry.high_ms - entry.low_ms) / 2
            rows.add_row(str(entry.operator), f"{entry.median_ms:.3f}", f"{spread:.3f}", end_section=place == SHOWN - 1)
    console = Console(markup=False)
    console.print(rows)
    found = f" of {table.operators_found} (the others are interpolated)" if table.interpolates else ""
    console.print(f"{len(ordered)} operators{found}; the table is {table.error}", highlight=False, soft_wrap=True)
