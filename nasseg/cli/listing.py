"""`nasseg list`: the names of spaces, baselines, data sets and operators."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from nasseg.cli.options import Json, print_json


def list_(
    what: Annotated[
        Literal["spaces", "baselines", "datasets", "ops"], typer.Argument(help="spaces, baselines, datasets or ops.")
    ],
    as_json: Json = False,
) -> None:
    """List search spaces, baselines, data sets or operators."""
    rows = _rows(what)
    if as_json:
        print_json([{"name": name, "description": text} for name, text in rows])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "description", box=None)
    for name, text in rows:
        table.add_row(name, text)
    Console(markup=False).print(table)


def _rows(what: str) -> list[tuple[str, str]]:
    from nasseg import plugins

    if what == "spaces":
        return [(name, _summary(plugins.loaded(plugins.SPACES, name))) for name in plugins.names(plugins.SPACES)]
    if what == "baselines":
        group = plugins.BASELINES
        return [(name, _summary(plugins.loaded(group, name))) for name in plugins.names(group)]
    if what == "datasets":
        from nasseg.data import datasets

        return [(name, _summary(make)) for name, make in datasets().items()]
    from nasseg.ops import operators

    return [(name, _summary(op)) for name, op in operators().items()]


def _summary(thing: object) -> str:
    return (thing.__doc__ or "").strip().split("\n")[0]
