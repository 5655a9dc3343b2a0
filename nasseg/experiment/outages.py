"""Databases that stop answering in mid-search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError


@contextmanager
def answering() -> Iterator[None]:
    """Turn what goes wrong between the block and a database into a `ConnectionError` of one line, without its URL."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ConnectionError(f"the database failed ({reason}); see to it, then go on with --resume") from error
