"""The public data sets that are known by name: a description of each, in `official/NAME.json`."""

from __future__ import annotations

from importlib.resources import files

from pydantic import ValidationError

from nasseg.data.formats.description import Description

_FOLDER = files("nasseg.data.formats") / "official"


def official_names() -> tuple[str, ...]:
    """The names of the public data sets."""
    return tuple(sorted(file.name.removesuffix(".json") for file in _FOLDER.iterdir() if file.name.endswith(".json")))


def official(name: str) -> Description:
    """The description of a public data set."""
    try:
        return Description.model_validate_json((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    except ValidationError as error:
        raise AssertionError(f"{name}.json is invalid") from error
