"""The `nasseg` command: its subcommands by name, and its exit codes."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError

from nasseg.cli import benchmark, data, describe, evaluate, export, listing, predict, profile, report, retrain, search
from nasseg.cli.options import FAILED, INTERRUPTED, USER_ERROR
from nasseg.errors import one_line, shortened

app = typer.Typer(
    name="nasseg",
    help="Search for semantic-segmentation networks that are more accurate at your latency.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"nasseg {version('nasseg')}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


COMMANDS: dict[str, Callable[..., None]] = {
    "search": search.search,
    "retrain": retrain.retrain,
    "evaluate": evaluate.evaluate,
    "predict": predict.predict,
    "export": export.export,
    "describe": describe.describe,
    "benchmark": benchmark.benchmark,
    "profile": profile.profile,
    "report": report.report,
    "list": listing.list_,
}
EPILOG = "With --debug, errors show their traceback."
for name, command in COMMANDS.items():
    app.command(name, epilog=EPILOG)(command)
app.add_typer(data.app, name="data", epilog=EPILOG)
UsageError = typer.BadParameter.__bases__[0]
"""The base of Typer's exceptions for a wrong command line, for which it exports no name."""


def main() -> None:
    """Run the command line; exit code 0 is success, 1 failure, 2 the user's mistake, 130 interruption."""
    debug = "--debug" in sys.argv[1:]
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        sys.exit(app(arguments or ["--help"], prog_name="nasseg", standalone_mode=False))
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", INTERRUPTED, debug)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        hint = "; free some space there and try again" if full else ""
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}{hint}", USER_ERROR, debug)
    except ValueError as error:
        _fail(one_line(error) if isinstance(error, ValidationError) else str(error), USER_ERROR, debug)
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # as native code of Ray passes one on
            _fail("interrupted", INTERRUPTED, debug)
        if isinstance(error, UsageError):
            _fail(_usage(error), USER_ERROR, debug)
        _fail(f"{type(error).__name__}: {error} (run again with --debug for the traceback)", FAILED, debug)


def _usage(error: Any) -> str:
    """Say what is wrong with the command line, and where its options are listed."""
    command = error.ctx.command_path if error.ctx else "nasseg"
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    return f"{message}; see {command} --help"


def _fail(message: str, code: int, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"nasseg: {shortened(message)}\n")
    sys.stderr.flush()
    if code == INTERRUPTED:
        os._exit(code)  # threads of libraries must not delay it
    sys.exit(code)
