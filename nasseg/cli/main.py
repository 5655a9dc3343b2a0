"""The `nasseg` command: its commands by name, and what an error ends in."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable

import typer

from nasseg.cli import describe, evaluate, listing, predict, report, retrain, search
from nasseg.cli.options import FAILED, INTERRUPTED, USER_ERROR

app = typer.Typer(
    name="nasseg",
    help="Search for semantic-segmentation networks that are more accurate at your latency.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., None]] = {
    "search": search.search,
    "retrain": retrain.retrain,
    "evaluate": evaluate.evaluate,
    "predict": predict.predict,
    "describe": describe.describe,
    "report": report.report,
    "list": listing.list_,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> None:
    """Run the command line: exit code 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""
    debug = "--debug" in sys.argv[1:]
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED, debug)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        hint = "; free some space, or name another folder with --out" if full else ""
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}{hint}", USER_ERROR, debug)
    except ValueError as error:
        _fail(str(error), USER_ERROR, debug)
    except Exception as error:
        _fail(f"{type(error).__name__}: {error} (run again with --debug for the traceback)", FAILED, debug)


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    line = " ".join(message.split())
    sys.stderr.write(f"nasseg: {line}\n")
    sys.stderr.flush()
    # Threads of libraries must not delay an answer that is complete.
    os._exit(code) if code == INTERRUPTED else sys.exit(code)
