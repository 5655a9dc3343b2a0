"""Turning validation failures into one line that a user can act on."""

from pydantic import ValidationError


def one_line(error: ValidationError, where: str = "") -> str:
    """The first problem of `error`, with the path of the offending field: `best.json: nodes[3].op.kernel: …`."""
    problem = error.errors(include_url=False)[0]
    path = ""
    for part in problem["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    message = problem["msg"].removeprefix("Value error, ")
    value = problem.get("input")
    if problem["type"] not in {"missing", "value_error"} and isinstance(value, (str, int, float, bool, list)):
        message = f"is {value!r}, but: {message[0].lower()}{message[1:]}"
    more = error.error_count() - 1
    suffix = f" (and {more} more)" if more else ""
    return ": ".join(part for part in (where, path, message) if part) + suffix
