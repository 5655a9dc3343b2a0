"""`nasseg evaluate`: score a trained model on a split."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasseg.cli.options import (
    Config,
    Data,
    Device,
    Json,
    Readers,
    optional_size,
    parse_numbers,
    print_json,
    say,
    say_threads,
)

if TYPE_CHECKING:
    from nasseg.cost import Latency
    from nasseg.train.metrics import Metrics

Model = Annotated[
    Path, typer.Argument(help="A run folder, its model.safetensors, or an exported .onnx file.", metavar="RUN|FILE")
]
Run = Annotated[Path, typer.Argument(help="A run folder, or its model.safetensors.", metavar="RUN|CHECKPOINT")]
Scales = Annotated[str, typer.Option("--scales", help="Image scales whose predictions are averaged, like 0.5,1,2.")]
Flip = Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")]
Window = Annotated[
    str | None,
    typer.Option("--window", help="HEIGHTxWIDTH: see images in windows that overlap by a third, not as a whole."),
]


def evaluate(
    model: Model,
    data: Data = None,
    split: Annotated[
        str | None, typer.Option(help="Split to score: test or, if there is none, the run's for validation.")
    ] = None,
    scales: Scales = "1",
    flip: Flip = False,
    window: Window = None,
    confusion: Annotated[
        Path | None, typer.Option(help="Draw which classes are taken for which, as .png or .svg.")
    ] = None,
    device: Device = "auto",
    readers: Readers = 0,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Score a trained model: mIoU with its interval, boundary IoU, IoU of every class, and its speed."""
    import torch

    from nasseg.data import evaluation_batches, open_dataset
    from nasseg.export.latency import latency_of
    from nasseg.export.model import Model as TrainedModel
    from nasseg.report.figures.confusion import confusion_figure
    from nasseg.report.figures.figure import check_suffix, save
    from nasseg.train.device import choose_device, threads_for
    from nasseg.train.evaluate import evaluate as score

    wanted, windows = parse_numbers(scales), optional_size(window)
    if confusion is not None:
        check_suffix(confusion)
        confusion.parent.mkdir(parents=True, exist_ok=True)
    target = choose_device(device)
    torch.set_num_threads(threads_for(target))
    trained = TrainedModel.load(model, device)
    dataset = open_dataset(data or trained.provenance.data.spec)
    classes = trained.classes
    if dataset.classes != classes:
        raise ValueError(
            f"{dataset.spec} has the classes {', '.join(dataset.classes)}, but the model was trained for "
            f"{', '.join(classes)}; give the data that it was trained for"
        )
    if split is None:
        split = "test" if "test" in dataset.splits() else trained.provenance.data.val_split
        if split != "test":
            say(f"there is no split test: scoring {split}, on which the run was validated (--split)")
    part = dataset.split(split)
    part.check()
    if trained.device.type == "cpu":
        say_threads(torch.get_num_threads())
    batches = (batch for batch, _ in evaluation_batches(part, 4, trained.device, readers))
    metrics = score(
        trained.segmenter,
        batches,
        len(classes),
        dataset.ignore_index,
        trained.device,
        wanted,
        flip,
        boundary=True,
        window=windows,
    )
    height, width = part[0].mask.shape
    latency = latency_of(trained.segmenter, windows or (height, width), trained.device)
    if as_json:
        measured = {"data": dataset.spec, "split": split, "images": len(part), "classes": classes}
        scores = {**metrics.model_dump(mode="json"), "latency": latency.model_dump(mode="json")}
        print_json({"model": str(model), **measured, **scores})
    else:
        _print(f"{dataset.spec}, {split}: {len(part)} images", classes, metrics)
        say(_latency_text(latency, "window" if windows else "image", views=len(wanted) * (2 if flip else 1)))
    if confusion is not None:
        save(confusion_figure(metrics.confusion, classes), confusion)
        say(f"drew {confusion}")
    if model.suffix != ".onnx" and not as_json:
        named = shlex.quote(str(model))
        say(f"next: nasseg predict {named} IMAGES, or nasseg export {named} --format onnx")


def _print(title: str, classes: Sequence[str], metrics: Metrics) -> None:
    from rich.console import Console

    from nasseg.report.scores import score_table

    console = Console(markup=False)
    console.print(score_table(title, classes, metrics))
    if (interval := metrics.miou_interval) is not None:
        low, high = interval
        console.print(f"mIoU {metrics.miou:.4f}, 95 % interval over images {low:.4f} to {high:.4f}")
    console.print(f"pixel accuracy {metrics.pixel_accuracy:.4f}")


def _latency_text(latency: Latency, what: str, views: int) -> str:
    return (
        f"{latency.median_ms:.1f} ms for one {what} of {latency.size[0]}x{latency.size[1]}"
        f"{f', of which a prediction takes {views} views' if views > 1 else ''} ({latency.device}, {latency.dtype}, "
        f"{latency.threads} thread{'s' if latency.threads > 1 else ''}, {latency.backend})"
    )
