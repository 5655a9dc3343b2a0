"""`nasseg retrain`: train a network end to end, with all settings read from its file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    new_run_folder,
    parse_size,
    print_json,
    refuse_changes,
    say,
    say_threads,
)

if TYPE_CHECKING:
    from nasseg.train.metrics import Metrics
    from nasseg.train.retrain import Retraining
    from nasseg.train.retraining.history import History


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
    class_weights: Annotated[
        str | None, typer.Option(help="Weight of each class in the loss, like 1,1,5; balanced: rare ones count more.")
    ] = None,
    detail_head: Annotated[
        bool | None,
        typer.Option("--detail-head/--no-detail-head", help="Also train STDC's detail head; the model has none."),
    ] = None,
    validate_every: Annotated[
        int | None, typer.Option(help="Steps between two validations; a tenth of the run if not given.", min=1)
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="End early after so many validations without a higher mIoU.", min=1)
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="A trained network to learn from, too: run folder or model.", metavar="RUN")
    ] = None,
    teacher_weight: Annotated[
        float | None, typer.Option(help="Weight of the loss against the teacher; 1 if not given.", min=0)
    ] = None,
    compile: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the network with torch.compile.")
    ] = None,
    log: Annotated[str | None, typer.Option(help="Also log to a tracker: wandb or mlflow.")] = None,
    device: Device = "auto",
    seed: Seed = 0,
    workers: Annotated[
        int, typer.Option(help="Processes that train together, each with a GPU if it is on GPUs.", min=1)
    ] = 1,
    ray_address: Annotated[
        str | None, typer.Option(help="Ray cluster for the workers; its machines must share folders and data.")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Parts of a batch whose gradients are added up, to save memory.", min=1)
    ] = None,
    readers: Annotated[
        int | None, typer.Option(help="Threads of each worker that read images ahead; spare cores if not given.", min=0)
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Decode images once, into the user's cache.")
    ] = True,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Train a network end to end. Data, classes, weights and size are read from its file; options override them."""
    from nasseg.cli.search import stop_on_interrupt
    from nasseg.report.profile import ProfileBars
    from nasseg.report.retrain import RetrainReporter
    from nasseg.report.trackers import check_tracker
    from nasseg.run_folder import METRICS_FILE, claimed, to_resume
    from nasseg.train.fit import Stopped
    from nasseg.train.metrics import Metrics
    from nasseg.train.retrain import Retraining
    from nasseg.train.retraining.history import History

    changes = {
        "steps": steps,
        "batch_size": batch_size,
        "crop": parse_size(crop) if crop else None,
        "learning_rate": learning_rate,
        "accumulate": accumulate,
        "boundary_weight": boundary_weight,
        "class_weights": class_weights,
        "detail_head": detail_head,
        "teacher_weight": teacher_weight,
        "compile": compile,
    }
    if log is not None:
        check_tracker(log)
    if resume:
        refuse_changes(context)
        existing = to_resume(out, "training")
        context.with_resource(claimed(existing))
        training = Retraining.load(existing)
        _check_log(training.config.log, log)
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
                readers=readers,
                cache=cache,
                validate_every=validate_every,
                patience=patience,
                teacher=teacher,
                log=log,
                space=space,
                show=bars.show,
            )
        context.with_resource(claimed(training.folder))
    for warning in training.warnings:
        say(f"warning: {warning}")
    if training.weights_report is not None and not training.weights_report.complete:
        say(f"weights: {training.weights_report}")
    _announce(training, is_random=weights is None and not resume and training.config.weights is None)
    stop = stop_on_interrupt()
    try:
        if training.config.workers > 1:
            from nasseg.jobs.runners.ray_train import retrain_on_workers

            retrain_on_workers(training, RetrainReporter, address=ray_address, stop=stop, say=say)
        else:
            with RetrainReporter(training, stop, say) as reporter:
                training.run(reporter)
    except Stopped:
        elsewhere = {"--log": log, "--ray-address": ray_address}
        given = [part for option, value in elsewhere.items() if value is not None for part in (option, value)]
        again = shlex.join(["nasseg", "retrain", arch, "--resume", "--out", str(training.folder), *given])
        say(f"stopped; the state is saved. Continue with:\n  {again}")
        raise typer.Exit(INTERRUPTED) from None
    metrics = Metrics.model_validate_json((training.folder / METRICS_FILE).read_bytes())
    history = History.load(training.folder)
    best = history.best
    if as_json:
        run = {"folder": str(training.folder), "steps": history.validations[-1].step}
        print_json({**run, **metrics.model_dump(mode="json"), "best": best and best.model_dump(mode="json")})
    else:
        _conclude(training, metrics, history)


def _check_log(saved: str | None, given: str | None) -> None:
    """Raise `ValueError` unless the tracker of a run, whose folder may be someone else's, is given again."""
    if saved != given:
        fix = f"if you trust that, give --log {saved}" if saved else "leave out --log"
        raise ValueError(f"the run logs to {saved or 'no tracker'}; {fix}")


def _announce(training: Retraining, is_random: bool) -> None:
    """Say what is about to be trained, on what, and how often it is scored; warn of a random backbone."""
    from nasseg.train.detail_head import BACKBONE

    config, architecture = training.config, training.architecture
    used = config.recipe
    if is_random and any(node.stage == BACKBONE for node in architecture.nodes):
        say("warning: the backbone starts from random weights; --weights imagenet|FILE gives pretrained ones")
    say(
        f"{architecture.name} on {config.data} ({len(training.train)} images), "
        f"{used.steps} steps of {used.batch_size} crops {used.crop[0]}x{used.crop[1]}, on "
        f"{f'{config.workers} workers, ' if config.workers > 1 else ''}{training.device}"
    )
    count = config.validations_after(0)
    say(
        f"validation on {len(training.val)} images of {config.val_split} every {config.interval} steps, {count} in all "
        "(--validate-every)"
    )
    if training.device.type == "cpu":
        say_threads(config.threads)


def _conclude(training: Retraining, metrics: Metrics, history: History) -> None:
    """Print the IoU of every class, the files of the last and the best model, and the command to go on with."""
    from rich.console import Console

    from nasseg.report.scores import score_table
    from nasseg.run_folder import BEST_MODEL_FILE, MODEL_FILE

    config, folder, dataset, best = training.config, training.folder, training.dataset, history.best
    step = history.validations[-1].step
    if step < config.recipe.steps:
        say(f"ended early: no higher mIoU in {config.patience} validations (--patience)")
    title = f"{config.val_split}: {len(training.val)} images"
    Console(stderr=True, markup=False).print(score_table(title, dataset.classes, metrics))
    say(f"mIoU {metrics.miou:.4f} on {config.val_split} at step {step}, the last: {folder / MODEL_FILE}")
    model = folder
    if best is not None and best.miou > metrics.miou:
        model = folder / BEST_MODEL_FILE
        say(f"mIoU {best.miou:.4f} at step {best.step}, the best: {model}")
    seen = {part for split in (config.train_split, config.val_split) for part in split.partition("@")[0].split("+")}
    split = "test" if "test" in dataset.splits() and "test" not in seen else config.val_split
    named = shlex.quote(str(model))
    say(f"next:\n  nasseg evaluate {named} --split {split}\n  nasseg predict {named} IMAGE --out predicted")
