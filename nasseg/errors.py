"""Turning validation failures into one line that a user can act on."""

import re
from reprlib import repr as short_repr

from pydantic import ValidationError
from pydantic_core import ErrorDetails


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


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _message(problem: ErrorDetails) -> str:
    match problem["type"]:
        case "missing" | "union_tag_not_found":
            return "is missing"
        case "extra_forbidden":
            return "is not a known field"
        case "value_error":
            return str(problem["msg"]).removeprefix("Value error, ")
        case "union_tag_invalid":
            known = problem["ctx"]["expected_tags"].replace("'", "")
            return f"is {problem['ctx']['tag']!r}, but must be one of {known}"
    rule, rephrased = re.subn(r"^\w+ should", "must", problem["msg"])
    return f"is {short_repr(problem['input'])}, but{'' if rephrased else ':'} {rule[0].lower()}{rule[1:]}"
