"""`nasseg search`: find a network for the data within a budget."""

from __future__ import annotations

import shlex
import signal
import threading
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nasseg.cli.options import (
    INTERRUPTED,
    Config,
    Data,
    Device,
    Json,
    Seed,
    Storage,
    Weights,
    new_run_folder,
    print_json,
    say,
    take_space,
)

if TYPE_CHECKING:
    from nasseg.planning.config import SearchConfig

GOAL = "What counts"
Steps = Annotated[
    str | None, typer.Option("--rungs", help="Steps at which proxy trainings are compared, like 60,180.", metavar="A,B")
]


def search(
    space: Annotated[
        str | None,
        typer.Option(
            callback=take_space, show_default="dpc", help="dpc, auto_deeplab[:OPTIONS], or package.module:Class."
        ),
    ] = None,
    budget: Annotated[str, typer.Option(help="200gpu-h, 8cpu-h, 2h, 30min or 40trials.")] = "30min",
    data: Data = None,
    train_split: Annotated[str, typer.Option(help="Split that trials train on.")] = "train",
    val_split: Annotated[str, typer.Option(help="Split that trials are scored on.")] = "val",
    weights: Weights = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; named by itself under runs/ if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the search in --out.")] = False,
    strategy: Annotated[
        Literal["trials", "gradient"], typer.Option(help="By trials, or by gradient where the space can be relaxed.")
    ] = "trials",
    sampler: Annotated[
        str | None,
        typer.Option(help="tpe; nsga2, taken for a front; neighbourhood, taken by gradient; or random."),
    ] = None,
    objective: Annotated[
        Literal["score", "pareto"], typer.Option(help="One score, or a front of mIoU and cost.", rich_help_panel=GOAL)
    ] = "score",
    cost_weight: Annotated[
        float,
        typer.Option(
            help="Exponent of relative cost in the score, at most 0, which ignores cost.", max=0, rich_help_panel=GOAL
        ),
    ] = -0.07,
    latency: Annotated[
        Path | None,
        typer.Option(
            help="Table of nasseg profile: cost is latency, not MAdds.", metavar="TABLE.json", rich_help_panel=GOAL
        ),
    ] = None,
    target_latency: Annotated[
        str | None, typer.Option(help="Most that a network may take by the table, like 20ms.", rich_help_panel=GOAL)
    ] = None,
    max_params: Annotated[str | None, typer.Option(help="Most parameters, like 3M.", rich_help_panel=GOAL)] = None,
    max_madds: Annotated[str | None, typer.Option(help="Most MAdds, like 2G.", rich_help_panel=GOAL)] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Most memory at inference, like 512MiB.", rich_help_panel=GOAL)
    ] = None,
    inherit: Annotated[bool, typer.Option(help="Start trials on images from the weights of earlier ones.")] = True,
    storage: Storage = None,
    runner: Annotated[Literal["ray", "in-process"], typer.Option(help="What runs the jobs.")] = "ray",
    ray_address: Annotated[str | None, typer.Option(help="Join this Ray cluster.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Jobs at once.", min=1)] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(help="Share of a GPU that a job takes.", min=0.01)] = None,
    rungs: Steps = None,
    full_steps: Annotated[int | None, typer.Option(help="Steps of an end-to-end training.", min=1)] = None,
    finalists: Annotated[int | None, typer.Option(help="Candidates trained end to end.", min=1)] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds of each end-to-end training.", min=1)] = None,
    relaxations: Annotated[int | None, typer.Option(help="Relaxations trained by gradient.", min=1)] = None,
    relax_steps: Annotated[int | None, typer.Option(help="Steps of a relaxation.", min=1)] = None,
    partial_channels: Annotated[
        int | None, typer.Option(help="Relax 1/K of the channels, to save memory.", metavar="K", min=1)
    ] = None,
    checkpoint_activations: Annotated[
        bool | None,
        typer.Option(
            "--checkpoint-activations/--no-checkpoint-activations",
            help="Compute a relaxation's activations twice, to save memory; on GPUs by default.",
        ),
    ] = None,
    image_scale: Annotated[float | None, typer.Option(help="Scale of images in the search.", min=0.05, max=1)] = None,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Search for a network. The handcrafted one is trained first; the best candidates are trained end to end."""
    from nasseg.experiment.experiment import Search, begin
    from nasseg.planning.budget import Budget
    from nasseg.planning.config import SearchConfig
    from nasseg.report.search import SearchReporter
    from nasseg.run_folder import CONFIG_FILE

    if resume:
        if out is None:
            raise ValueError("--resume needs --out RUN, the folder of the search to continue")
        saved = SearchConfig.load(out, space=space, storage=storage)
        if saved.ray_address is not None and ray_address is None:
            raise ValueError(
                f"{out / CONFIG_FILE}: ray_address is {saved.ray_address!r}, and a cluster runs code here; if you "
                "trust it, give it again with --ray-address"
            )
        saved = saved.model_copy(update={"ray_address": ray_address})
        say(f"continuing {out}: {saved.space} on {saved.data}, budget {saved.budget}")
        run = Search(saved, out)
    else:
        out = out or new_run_folder("search")
        given = {
            "rungs": _parse_rungs(rungs), "full_steps": full_steps, "finalists": finalists, "seeds": seeds,
            "image_scale": image_scale, "gpus_per_trial": gpus_per_trial, "relaxations": relaxations,
            "relax_steps": relax_steps, "partial_channels": partial_channels,
            "checkpoint_activations": checkpoint_activations,
        }  # fmt: skip
        asked = SearchConfig(
            space=space or "dpc", data=data or "streets", train_split=train_split, val_split=val_split,
            budget=Budget.parse(budget), strategy=strategy, weights=weights, runner=runner, storage=storage,
            ray_address=ray_address, device=device, seed=seed, inherit=inherit, objective=objective,
            cost_weight=cost_weight, latency=None if latency is None else str(latency),
            target_latency=target_latency, max_params=max_params, max_madds=max_madds, max_memory=max_memory,
            **({} if sampler is None else {"sampler": sampler}),
        )  # fmt: skip
        say("checking the data and measuring the machine's speed …")
        run = begin(out, asked, given, concurrency)
    stop = stop_on_interrupt()
    with SearchReporter(run) as reporter:
        run.run(stop, reporter.update)
    if stop.is_set():
        again = _named_again(run.config)
        say(f"stopped; everything finished is saved. Continue with:\n  nasseg search --resume --out {out}{again}")
        raise typer.Exit(INTERRUPTED)
    if as_json:
        print_json(reporter.summary())
    else:
        reporter.print_summary()


def _named_again(config: SearchConfig) -> str:
    """The options that a resumption needs on the command line, as it does not take them from a file alone."""
    from nasseg import plugins
    from nasseg.planning.database import without_password

    named = {
        "space": None if plugins.is_registered(config.space) else config.space,
        "storage": None if config.storage is None else without_password(config.storage),
        "ray-address": config.ray_address,
    }
    return "".join(f" --{name} {shlex.quote(value)}" for name, value in named.items() if value is not None)


def _parse_rungs(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        steps = tuple(int(part) for part in text.split(","))
    except ValueError:
        steps = ()
    if not steps or steps[0] < 1 or any(low >= high for low, high in pairwise(steps)):
        raise ValueError(f"rungs are {text!r}, but must be rising numbers of steps joined by commas, like 60,180")
    return steps


def stop_on_interrupt() -> threading.Event:
    """An event that the first Ctrl-C sets; the second ends the process at once."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> Any:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        say("\nstopping; Ctrl-C again to end at once …")

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop
