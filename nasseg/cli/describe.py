"""`nasseg describe`: the costs of a network, by stage and node."""

from __future__ import annotations

from typing import Annotated

import typer

from nasseg.cli.options import Arch, Config, Json, SpaceOfFile, parse_size, print_json


def describe(
    arch: Arch,
    classes: Annotated[int | None, typer.Option(help="Classes of a network given by name (19).", min=1)] = None,
    size: Annotated[str, typer.Option(help="Image size, HEIGHTxWIDTH.")] = "512x1024",
    space: SpaceOfFile = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Show parameters, MAdds and shapes of a network."""
    from nasseg import plugins

    pixels = parse_size(size)
    architecture = plugins.architecture(arch, classes, named_by_user=space)
    if classes not in (None, architecture.classes):
        raise ValueError(f"{arch} has {architecture.classes} classes; --classes is for networks given by name")
    description = architecture.describe(pixels)
    if as_json:
        print_json(description.model_dump(mode="json"))
        return

    from rich.console import Console
    from rich.table import Table

    nodes = Table(
        "node", "operator", "inputs", "shape", "params", "MAdds", title=description.name, title_justify="left"
    )
    for column in nodes.columns[4:]:
        column.justify = "right"
    for node in description.nodes:
        shape = "×".join(map(str, node.shape))
        nodes.add_row(node.name, node.op, ", ".join(node.inputs), shape, f"{node.params:,}", f"{node.madds:,}")
    stages = Table("stage", "params", "weights", "MAdds")
    for column in stages.columns[1:]:
        column.justify = "right"
    for stage, cost in description.stages.items():
        stages.add_row(stage, f"{cost.params:,}", f"{cost.weights:,}", f"{cost.madds:,}")
    stages.add_row("all", f"{description.params:,}", "", f"{description.madds:,}", style="bold")
    console = Console(markup=False)
    console.print(nodes)
    console.print(stages)
    console.print(
        f"{description.params:,} parameters ({description.params_training:,} in training), "
        f"{description.madds / 1e9:.2f} G MAdds at {description.size[0]}x{description.size[1]}, "
        f"{description.classes} classes"
    )
