"""`nasseg report`: rewrite a search's report from its run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nasseg.cli.options import Json, SpaceOfFile, Storage, print_json


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a search.", metavar="RUN")],
    space: SpaceOfFile = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Rewrite trials.csv and report.html of a search, and print its summary."""
    from nasseg.experiment.experiment import Experiment
    from nasseg.report.search import SearchReporter

    reporter = SearchReporter(Experiment.open(run, space=space, storage=storage))
    reporter.write()
    if as_json:
        print_json(reporter.summary())
    else:
        reporter.print_summary()
