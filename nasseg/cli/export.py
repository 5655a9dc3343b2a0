"""`nasseg export`: a trained network as a file for other runtimes, checked against PyTorch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nasseg.cli.evaluate import Run
from nasseg.cli.options import Config, Data, Json, optional_size, print_json, say

if TYPE_CHECKING:
    from nasseg.export.export import Export


def export(
    run: Run,
    format: Annotated[
        str, typer.Option(help="onnx, onnx-float16, int8, torch, torch-float16 or torch-bfloat16.")
    ] = "onnx",
    size: Annotated[str | None, typer.Option(help="Image size, HEIGHTxWIDTH; that of the training's images.")] = None,
    images: Annotated[
        Literal["fixed", "any", "resized"],
        typer.Option(help="Images it takes: of --size; of any size; or of any, resized to --size inside and back."),
    ] = "fixed",
    normalise: Annotated[bool, typer.Option("--normalise", help="Take uint8 RGB images; normalise inside.")] = False,
    argmax: Annotated[bool, typer.Option("--argmax", help="Give class indices instead of logits.")] = False,
    out: Annotated[Path | None, typer.Option(help="File to write; in the run's folder if not given.")] = None,
    data: Data = None,
    split: Annotated[
        str | None, typer.Option(help="Split to compare and score on; the run's validation split.")
    ] = None,
    calibration_images: Annotated[int, typer.Option(help="Training images that give int8 its ranges.", min=1)] = 64,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Write a trained network as ONNX or as a program of PyTorch, with a model card beside it.

    The file is compared with PyTorch on real images and timed; one that rounds is scored before and after.
    """
    from nasseg.data import open_dataset
    from nasseg.export.export import export as write
    from nasseg.export.options import ExportOptions
    from nasseg.train.model import load_model

    if run.suffix in {".onnx", ".pt2"}:
        raise ValueError(f"{run} is exported already; give the run that it came from, or its model.safetensors")
    network, provenance = load_model(run)
    options = ExportOptions(
        format=format,
        size=optional_size(size) or provenance.data.size,
        images=images,
        normalise=normalise,
        argmax=argmax,
    )
    options.check_packages()
    dataset = open_dataset(data or provenance.data.spec)
    if dataset.classes != provenance.data.classes:
        raise ValueError(f"{dataset.spec} has other classes than the model was trained for; give its own data")
    path = out or _beside(run, options.format, options.made.suffix)
    if path.suffix != options.made.suffix:
        raise ValueError(f"{path} must end in {options.made.suffix} for format {format}")
    done = write(
        network,
        provenance,
        options,
        path,
        shown=dataset.split(split or provenance.data.val_split),
        calibration=dataset.split(provenance.data.train_split) if options.made.int8 else None,
        calibration_images=calibration_images,
        say=say,
    )
    if as_json:
        print_json(_document(done))
    else:
        _report(done)


def _beside(run: Path, format: str, suffix: str) -> Path:
    """Name the file after the model: `best.safetensors` is not to be taken for the run's last state."""
    from nasseg.run_folder import MODEL_FILE

    model = run / MODEL_FILE if run.is_dir() else run
    kind = "" if format in {"onnx", "torch"} else f"-{format.removeprefix('onnx-').removeprefix('torch-')}"
    return model.with_name(f"{model.stem}{kind}{suffix}")


def _document(done: Export) -> dict[str, object]:
    return {
        "file": str(done.path),
        "card": str(done.card),
        "agreements": [agreement.model_dump(mode="json") for agreement in done.agreements],
        "latency": {name: latency.model_dump(mode="json") for name, latency in done.latencies.items()},
        "miou": done.mious,
    }


def _report(done: Export) -> None:
    for name, miou in done.mious.items():
        say(f"mIoU {miou:.4f}: {name}")
    for name, latency in done.latencies.items():
        say(f"{latency.median_ms:.2f} ms: {name}, one image of {latency.size[0]}x{latency.size[1]}")
    say(f"wrote {done.path} ({done.path.stat().st_size / 2**20:.1f} MiB) and its card {done.card}")
    if done.path.suffix == ".onnx":
        named = shlex.quote(str(done.path))
        evaluate = f"nasseg evaluate {named}, or " if done.takes_shown else ""
        say(f"next: {evaluate}nasseg benchmark {named}")
