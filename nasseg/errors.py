"""Turning validation failures into one line that a user can act on."""

import re
from collections.abc import Iterable
from reprlib import repr as short_repr

from pydantic import ValidationError
from pydantic_core import ErrorDetails

LONGEST = 300
"""Characters of a message that users see."""


def shortened(message: str) -> str:
    """Return a message in one line of printable characters, without its middle if it is too long."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(message.split()))
    return _brief(line, LONGEST)


def some_of(things: Iterable[object], most: int = 8, between: str = ", ") -> str:
    """Name the first of several things, and how many more there are: `road, car and 7 more`."""
    names = list(map(str, things))
    more = len(names) - most
    return between.join(names[:most]) + (f" and {more} more" if more > 0 else "")


def one_line(error: ValidationError, where: str = "") -> str:
    """Describe the first problem of `error`, with the path of the field: `best.json: nodes[3].op.kernel is …`."""
    problem = error.errors(include_url=False)[0]
    path, message = _path(problem["loc"]), _message(problem)
    if problem["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        path += "." + problem["ctx"]["discriminator"].strip("'")
    colon = ":" if path and problem["type"] == "value_error" else ""
    text = f"{path}{colon} {message}" if path else message
    more = error.error_count() - 1
    suffix = f" (and {more} more)" if more else ""
    return (f"{where}: {text}" if where else text) + suffix


def _brief(text: str, most: int) -> str:
    """Leave out the middle of a text of more than so many characters."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]} … {text[-half:]}"


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        name = f"[{part}]" if isinstance(part, int) else _brief(part, 60)
        path += f".{name}" if path and isinstance(part, str) else name
    return _brief(path, 120)


def _message(problem: ErrorDetails) -> str:
    match problem["type"]:
        case "missing" | "union_tag_not_found":
            return "is missing"
        case "extra_forbidden":
            return "is not a known field"
        case "value_error":
            return _brief(str(problem["msg"]).removeprefix("Value error, "), 240)
        case "union_tag_invalid":
            known = problem["ctx"]["expected_tags"].replace("'", "")
            return f"is {short_repr(problem['ctx']['tag'])}, but must be one of {known}"
    rule, rephrased = re.subn(r"^\w+ should", "must", problem["msg"])
    return f"is {_brief(short_repr(problem['input']), 120)}, but{'' if rephrased else ':'} {rule[0].lower()}{rule[1:]}"
