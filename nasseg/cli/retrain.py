"""`nasseg retrain`: train a network end to end, with all settings read from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nasseg.cli.options import (
    INTERRUPTED,
    Arch,
    Config,
    Data,
    Device,
    Json,
    Seed,
    SpaceOfFile,
    Weights,
    Workers,
    new_run_folder,
    parse_size,
    print_json,
    say,
    say_threads,
)


def retrain(
    context: typer.Context,
    arch: Arch,
    space: SpaceOfFile = None,
    data: Data = None,
    train_split: Annotated[str | None, typer.Option(help="Split to train on; train+val joins two.")] = None,
    val_split: Annotated[str | None, typer.Option(help="Split to score on; 20% draws it from the other.")] = None,
    weights: Weights = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; a new one under runs/ if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the training in --out.")] = False,
    recipe: Annotated[str, typer.Option(help="short, long, paper, or a recipe's name.")] = "short",
    steps: Annotated[int | None, typer.Option(help="Training steps.", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.", min=1)] = None,
    crop: Annotated[str | None, typer.Option(help="Crop, HEIGHTxWIDTH.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate of the backbone.")] = None,
    boundary_weight: Annotated[
        float | None, typer.Option(help="Additional weight, in the loss, of pixels near another class.", min=0)
    ] = None,
    detail_head: Annotated[
        bool | None,
        typer.Option("--detail-head/--no-detail-head", help="Also train STDC's detail head; the model has none."),
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    workers: Workers = 0,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Train a network end to end. Data, classes, weights and size are read from its file; options override them."""
    from nasseg.cli.search import stop_on_interrupt
    from nasseg.report.profile import ProfileBars
    from nasseg.report.retrain import RetrainReporter
    from nasseg.run_folder import MODEL_FILE, claimed, to_resume
    from nasseg.train.fit import Stopped
    from nasseg.train.retrain import Retraining

    changes = {
        "steps": steps,
        "batch_size": batch_size,
        "crop": parse_size(crop) if crop else None,
        "learning_rate": learning_rate,
        "boundary_weight": boundary_weight,
        "detail_head": detail_head,
    }
    if resume:
        existing = to_resume(out, "training")
        context.with_resource(claimed(existing))
        training = Retraining.load(existing)
    else:
        with ProfileBars() as bars:
            training = Retraining.prepare(
                arch,
                out or new_run_folder("retrain"),
                data=data,
                train_split=train_split,
                val_split=val_split,
                weights=weights,
                recipe=recipe,
                changes={name: value for name, value in changes.items() if value is not None},
                device=device,
                seed=seed,
                workers=workers,
                space=space,
                show=bars.show,
            )
        context.with_resource(claimed(training.folder))
    for warning in training.warnings:
        say(f"warning: {warning}")
    if training.weights_report is not None and not training.weights_report.complete:
        say(f"weights: {training.weights_report}")
    used = training.config.recipe
    say(
        f"{training.architecture.name} on {training.config.data} ({len(training.train)} images), "
        f"{used.steps} steps of {used.batch_size} crops {used.crop[0]}x{used.crop[1]}, on {training.device}"
    )
    if training.device.type == "cpu":
        say_threads(training.config.threads)
    stop = stop_on_interrupt()
    try:
        with RetrainReporter(training, stop) as reporter:
            metrics = training.run(reporter.step, reporter.score)
    except Stopped:
        say(f"stopped; the state is saved. Continue with:\n  nasseg retrain {arch} --resume --out {training.folder}")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json({"folder": str(training.folder), "steps": used.steps, **metrics.model_dump(mode="json")})
    else:
        say(f"mIoU {metrics.miou:.4f} on {training.config.val_split}; the model is {training.folder / MODEL_FILE}")
