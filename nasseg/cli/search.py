"""`nasseg search`: find a network for the data within a budget."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from nasseg.cli.fields import options_from
from nasseg.cli.options import INTERRUPTED, Config, Json, new_run_folder, print_json, say
from nasseg.planning.options import SearchOptions

if TYPE_CHECKING:
    from nasseg.experiment.experiment import Experiment


@options_from(SearchOptions)
def search(
    out: Annotated[Path | None, typer.Option(help="Run folder; named by itself under runs/ if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the search in --out.")] = False,
    as_json: Json = False,
    config: Config = None,
    **options: object,
) -> None:
    """Search for a network. The handcrafted one is trained first; the best candidates are trained end to end."""
    from nasseg.report.search import SearchReporter

    run = _continue(out) if resume else _begin(out or new_run_folder("search"), options)
    stop = stop_on_interrupt()
    with SearchReporter(run) as reporter:
        run.run(stop, reporter.update)
    if stop.is_set():
        say(f"stopped; everything finished is saved. Continue with:\n  nasseg search --resume --out {run.folder}")
        raise typer.Exit(INTERRUPTED)
    if as_json:
        print_json(reporter.summary())
    else:
        reporter.print_summary()


def _continue(out: Path | None) -> Experiment:
    from nasseg.experiment.experiment import Experiment

    if out is None:
        raise ValueError("--resume needs --out RUN, the folder of the search to continue")
    run = Experiment.open(out)
    say(f"continuing {out}: {run.config.space} on {run.config.data}, budget {run.config.budget}")
    return run


def _begin(out: Path, given: dict[str, object]) -> Experiment:
    from nasseg.experiment.begin import begin

    options = SearchOptions.parse(given)
    say("checking the data and measuring the machine's speed …")
    return begin(out, options)


def stop_on_interrupt() -> threading.Event:
    """Make an event that the first Ctrl-C sets; the second ends the process at once."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        say("\nstopping; Ctrl-C again to end at once …")

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop
