"""`nasseg evaluate`: score a trained model on a split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nasseg.cli.options import Config, Data, Device, Json, Readers, parse_numbers, print_json, say_threads

Model = Annotated[Path, typer.Argument(help="A run folder, or its model.safetensors.", metavar="RUN|CHECKPOINT")]


def evaluate(
    model: Model,
    data: Data = None,
    split: Annotated[str, typer.Option(help="Split to score; train+val joins two.")] = "test",
    scales: Annotated[str, typer.Option(help="Image scales whose predictions are averaged, like 0.5,1,2.")] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False,
    device: Device = "auto",
    readers: Readers = 0,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Score a trained model: mIoU, boundary IoU, pixel accuracy, IoU of every class."""
    import torch
    from rich.console import Console

    from nasseg.data import evaluation_batches, open_dataset
    from nasseg.report.scores import score_table
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
    batches = (batch for batch, _ in evaluation_batches(part, 4, target, readers))
    metrics = score(network, batches, len(classes), dataset.ignore_index, target, wanted, flip, boundary=True)
    if as_json:
        measured = {"data": dataset.spec, "split": split, "images": len(part), "classes": classes}
        print_json({"model": str(model), **measured, **metrics.model_dump(mode="json")})
    else:
        console = Console()
        console.print(score_table(f"{dataset.spec}, {split}: {len(part)} images", classes, metrics))
        console.print(f"pixel accuracy {metrics.pixel_accuracy:.4f}")
