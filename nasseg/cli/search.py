"""`nasseg search`: find a network for the data within a budget."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from nasseg.cli.fields import options_from
from nasseg.cli.options import INTERRUPTED, Config, Json, is_given, new_run_folder, print_json, say, take_space
from nasseg.planning.options import SearchOptions

if TYPE_CHECKING:
    from nasseg.experiment.experiment import Experiment


@options_from(SearchOptions)
def search(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option(help="Run folder; a new one under runs/ if not given.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the search in --out; a larger budget counts, more finalists too.")
    ] = False,
    as_json: Json = False,
    config: Config = None,
    **options: str | None,
) -> None:
    """Search for a network: compare many, handcrafted ones too, by short trainings, and train the best end to end."""
    from nasseg.run_folder import claimed, to_resume

    take_space(context, options["space"])
    if resume:
        existing = to_resume(out, "search")
        context.with_resource(claimed(existing))
        run = _continue(context, existing, _given(context, options))
    else:
        run = _begin(out or new_run_folder("search"), _given(context, options))
        context.with_resource(claimed(run.folder))
    from nasseg.report.search import SearchReporter  # takes a second, which a refusal need not
    from nasseg.report.texts import resume_command

    stop = stop_on_interrupt()
    saved = f"everything finished is saved. Continue with:\n  {resume_command(run)}"
    try:
        with SearchReporter(run) as reporter:
            run.run(stop, reporter.update)
    except BaseException:
        say(saved)
        raise
    if stop.is_set():
        say(f"stopped; {saved}")
        raise typer.Exit(INTERRUPTED)
    if as_json:
        print_json(reporter.summary())
    else:
        reporter.print_summary()


def _given(context: typer.Context, options: Mapping[str, str | None]) -> dict[str, str | None]:
    """Select the options that are given, by command line or options file."""
    return {name: value for name, value in options.items() if is_given(context, name, or_in_file=True)}


def _continue(context: typer.Context, out: Path, options: Mapping[str, str | None]) -> Experiment:
    """Open the search in `out` with the options that are given, if they can change.

    A file alone is not to be trusted with a space, a database or a cluster: these come from the command line.
    """
    from nasseg.experiment.experiment import Experiment
    from nasseg.planning.config import SearchConfig
    from nasseg.run_folder import CONFIG_FILE

    given = dict(options)
    named = {name: given.pop(name, None) if is_given(context, name) else None for name in ("space", "storage")}
    saved = SearchConfig.load(out, **named)
    asked = SearchOptions.parse({"strategy": saved.strategy, "storage": saved.storage, **given}).from_anywhere()
    search = Experiment.open(out, **named, asked=asked)
    address = search.config.ray_address
    if address is not None and not is_given(context, "ray_address"):
        raise ValueError(
            f"{out / CONFIG_FILE}: ray_address is {address!r}, and a cluster runs code here; if you trust it, give it "
            "again with --ray-address"
        )
    if search.config != saved:
        search.config.save(out)
    say(f"continuing {out}: {search.config.space} on {search.config.data}, budget {search.config.budget}")
    return search


def _begin(out: Path, given: Mapping[str, object]) -> Experiment:
    options = SearchOptions.parse(given)
    say("checking the data and measuring the machine's speed …")
    from nasseg.experiment.begin import begin
    from nasseg.report.profile import ProfileBars

    with ProfileBars() as bars:
        return begin(out, options, bars)


def stop_on_interrupt() -> threading.Event:
    """Make an event that the first Ctrl-C or SIGTERM sets; the second interrupts, the third ends the process."""
    stop, interrupted = threading.Event(), threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            os._exit(INTERRUPTED)
        if stop.is_set():
            interrupted.set()
            raise KeyboardInterrupt
        stop.set()
        say("\nstopping; Ctrl-C again to end at once …")

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop
