"""Architecture files: JSON, validated on load, written whole or not at all."""

import os
import tempfile
from pathlib import Path
from reprlib import repr as short_repr
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from nasseg.errors import one_line
from nasseg.foreign import read_json
from nasseg.graph.architecture import Architecture

Model = TypeVar("Model", bound=BaseModel)


def load(path: str | Path) -> Architecture:
    """Read an architecture file; raises `ValueError` with the path of the offending field. Runs no code from it."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, but must be a file, such as {path / 'best.json'}")
    return read_model(Architecture, path, "a best.json, or a baseline's name")


def save(architecture: Architecture, path: str | Path) -> None:
    """Write an architecture file; a reader sees the old content or the new, never a part."""
    write_atomically(path, architecture.model_dump_json(indent=1, exclude_none=True) + "\n")


def read_model(model: type[Model], path: str | Path, what: str) -> Model:
    """Read a JSON file of a model with a field `format`.

    Raises `ValueError` with the path of the offending field, or one that tells the user to give `what`.
    """
    data = read_json(Path(path), f"give {what}")
    found = data.get("format") if isinstance(data, dict) else type(data).__name__
    if found != (wanted := model.model_fields["format"].default):
        raise ValueError(f"{path}: format is {short_repr(found)}, but must be {wanted!r}; give {what}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ValueError(one_line(error, str(path))) from None


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write `content` beside `path` and rename it into place; on any failure nothing is left behind."""
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # the error of a full disk names no file
        raise
