"""Options that several commands share, and their parsing."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as short_repr
from typing import Annotated

import typer
from pydantic import ValidationError

from nasseg.errors import one_line
from nasseg.foreign import read_yaml
from nasseg.planning.options import SearchOptions

FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130


CONNECTING = ("storage", "ray-address", "log")
"""Options that connect to other machines or files, which no file may decide."""


def load_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take the options in a YAML file as defaults, which the command line overrides."""
    if path is None:
        return None
    values = read_yaml(path, "--config takes a YAML file of options")
    if not isinstance(values or {}, dict):
        raise ValueError(f"{path} holds {type(values).__name__}, but must hold lines such as seed: 1")
    if values and {"plan", "recipe"} & {name for name, value in values.items() if isinstance(value, dict)}:
        values = _options_of_run(context.command.name or "", values, path)
    by_option = {
        option.removeprefix("--"): parameter.name
        for parameter in context.command.params
        for option in parameter.opts
        if option.startswith("--") and parameter.name != "config"
    }
    given = {str(name).replace("_", "-"): value for name, value in (values or {}).items()}
    for name in given:
        if name not in by_option:
            raise ValueError(f"{path}: unknown option {short_repr(name)}; known: {', '.join(sorted(by_option))}")
    _check_trusted(given, path)
    defaults = {by_option[name]: value for name, value in given.items()}
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def _options_of_run(command: str, values: Mapping[str, object], path: Path) -> dict[str, object]:
    """Return the options in the `config.yaml` of a run of this command; raises `ValueError` for another one's."""
    from nasseg.planning.config import SearchConfig
    from nasseg.train.retraining.config import RetrainConfig

    kind, model = ("search", SearchConfig) if "plan" in values else ("retrain", RetrainConfig)
    if command != kind:
        raise ValueError(f"{path} is of a run of nasseg {kind}; nasseg {command} does not take its options")
    try:
        options = model.model_validate(values).as_options()
    except ValidationError as error:
        raise ValueError(one_line(error, str(path))) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    say(f"{path}: taking this run's options as given; what was derived from them is derived anew")
    if elsewhere := [name for name in CONNECTING if values.get(name.replace("-", "_")) is not None]:
        flags = " and ".join(f"--{name}" for name in elsewhere)
        say(f"{path}: not taking {flags}; give what another run is to use on the command line")
    return options


def _check_trusted(given: Mapping[str, object], path: Path) -> None:
    """Raise `ValueError` for options that a file, which may be someone else's, must not decide."""
    for name in CONNECTING:
        if given.get(name) is not None:
            raise ValueError(f"{path}: {name} connects to another machine or file; give it with --{name}")
    out = Path(str(given.get("out", ".")))
    if out.is_absolute() or ".." in out.parts:
        raise ValueError(f"{path}: out leads out of the current folder; give it with --out")


Config = Annotated[
    Path | None,
    typer.Option("--config", callback=load_config, is_eager=True, help="Options as a YAML file.", metavar="FILE"),
]


def is_given(context: typer.Context, name: str, *, or_in_file: bool = False) -> bool:
    """Check that an option comes from the command line, or also from an options file; not from a default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", *(["DEFAULT_MAP"] if or_in_file else []))


GOING_ON = frozenset({"arch", "out", "resume", "as_json", "config", "ray_address", "log"})
"""Parameters that a training that goes on may be given."""


def refuse_changes(context: typer.Context) -> None:
    """Raise `ValueError` for an option that a training that goes on has already, given again or changed."""
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in GOING_ON and is_given(context, name, or_in_file=True):
            raise ValueError(
                f"{parameter.opts[0]} cannot change while a training goes on; leave it out with --resume, or begin "
                "another with another --out"
            )


def take_space(context: typer.Context, text: str | None) -> str | None:
    """Return a space as the user names it; if it is not registered, its module may lie in the current folder.

    Only then is that folder searched, so that other commands import nothing from it. Raises `ValueError` for an
    unregistered space in an options file, which may be someone else's.
    """
    from nasseg import plugins

    if text is None or plugins.is_registered(text):
        return text
    if not is_given(context, "space"):
        plugins.check_space(text, None, f"{context.params.get('config')}")
    sys.path.insert(0, os.getcwd())
    return text


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="streets[:OPTIONS] (generated), folder:PATH, or NAME:PATH (nasseg list datasets).",
        metavar="DATA",
    ),
]
SPACE_OF_A_FILE = "The file's search space, if it is not registered: you let its code run. As package.module:Class."
SpaceOfFile = Annotated[str | None, typer.Option("--space", callback=take_space, help=SPACE_OF_A_FILE, metavar="SPACE")]
Storage = Annotated[
    str | None, typer.Option("--storage", help=SearchOptions.model_fields["storage"].description, metavar="URL")
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights", help=SearchOptions.model_fields["weights"].description, metavar="FILE,…|DIR|imagenet|none"
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.", min=0)]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Readers = Annotated[int, typer.Option("--readers", help="Threads that read images ahead.", min=0)]


def parse_size(text: str) -> tuple[int, int]:
    """Parse HEIGHTxWIDTH in pixels; raises `ValueError` for anything else."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None or min(int(match[1]), int(match[2])) < 1:
        raise ValueError(f"size {short_repr(text)} must be HEIGHTxWIDTH in pixels, like 512x1024")
    return int(match[1]), int(match[2])


def optional_size(text: str | None) -> tuple[int, int] | None:
    """Parse HEIGHTxWIDTH if it is given."""
    return None if text is None else parse_size(text)


def parse_numbers(text: str) -> tuple[float, ...]:
    """Parse numbers joined by commas; raises `ValueError` for anything else."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} must be numbers joined by commas, like 0.5,1,2") from None


def newest_best(arch: str) -> str:
    """Return ARCH as given, but resolve a missing plain `best.json` to that of the newest search under `runs/`."""
    found = sorted(Path("runs").glob("*/best.json"), key=lambda path: path.stat().st_mtime)
    if arch != "best.json" or Path(arch).exists() or not found:
        return arch
    say(f"best.json: that of the newest search, {found[-1]}")
    return str(found[-1])


Arch = Annotated[
    str,
    typer.Argument(
        help="An architecture file, a run folder, or a name such as unet.", metavar="ARCH", callback=newest_best
    ),
]


def new_run_folder(kind: str) -> Path:
    """Name a folder under `runs/` after the command and the time."""
    import time

    return Path("runs") / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"


def print_json(value: object) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def say_threads(threads: int | None) -> None:
    """Say how many threads a command uses if the machine has more cores."""
    cores = os.cpu_count() or 1
    if threads is not None and threads < cores:
        say(f"computing with {threads} thread{'s' if threads > 1 else ''} on {cores} cores")


def say(message: str) -> None:
    """Print a line for people on stderr."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
