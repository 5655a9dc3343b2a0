"""`nasseg evaluate`: score a trained model on a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasseg.cli.options import Config, Data, Device, Json, Workers, parse_numbers, print_json, say_threads

if TYPE_CHECKING:
    from nasseg.train.metrics import Metrics

Model = Annotated[Path, typer.Argument(help="A run folder, or its model.safetensors.", metavar="RUN|CHECKPOINT")]


def evaluate(
    model: Model,
    data: Data = None,
    split: Annotated[str, typer.Option(help="Split to score; train+val joins two.")] = "test",
    scales: Annotated[str, typer.Option(help="Image scales whose predictions are averaged, like 0.5,1,2.")] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False,
    device: Device = "auto",
    workers: Workers = 0,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Score a trained model: mIoU, boundary IoU, pixel accuracy, IoU of every class."""
    import torch

    from nasseg.data import evaluation_batches, open_dataset
    from nasseg.train.device import choose_device, threads_for
    from nasseg.train.evaluate import evaluate as score
    from nasseg.train.model import load_model

    wanted = parse_numbers(scales)
    network, provenance = load_model(model)
    dataset = open_dataset(data or provenance.data.spec)
    classes = provenance.data.classes
    if dataset.classes != classes:
        raise ValueError(
            f"{dataset.spec} has the classes {', '.join(dataset.classes)}, but the model was trained for "
            f"{', '.join(classes)}; give the data that it was trained for"
        )
    part = dataset.split(split)
    part.check()
    target = choose_device(device)
    torch.set_num_threads(threads_for(target))
    if target.type == "cpu":
        say_threads(torch.get_num_threads())
    batches = (batch for batch, _ in evaluation_batches(part, 4, target, workers))
    metrics = score(network, batches, len(classes), dataset.ignore_index, target, wanted, flip, boundary=True)
    if as_json:
        measured = {"data": dataset.spec, "split": split, "images": len(part), "classes": classes}
        print_json({"model": str(model), **measured, **metrics.model_dump(mode="json")})
    else:
        _print_table(f"{dataset.spec}, {split}: {len(part)} images", classes, metrics)


def _print_table(title: str, classes: Sequence[str], metrics: Metrics) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("class", "IoU", "boundary IoU", title=title)
    for name, iou, edge in zip(classes, metrics.class_iou, metrics.class_boundary_iou or (), strict=True):
        table.add_row(name, "–" if iou is None else f"{iou:.4f}", "–" if edge is None else f"{edge:.4f}")
    table.add_row("[bold]mean", f"[bold]{metrics.miou:.4f}", f"[bold]{metrics.boundary_miou or 0:.4f}")
    Console().print(table)
    Console().print(f"pixel accuracy {metrics.pixel_accuracy:.4f}")
