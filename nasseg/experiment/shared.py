"""Databases that hold the records of searches."""

from __future__ import annotations

import time

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from nasseg.database import for_sqlalchemy

TRIES, RETRY_SECONDS = 5, 0.5
"""Of making the tables of a new database, which another search may be making at the same moment."""
LOCK_SECONDS = 60
"""That SQLite waits for other processes to have written."""


def open_database(url: str, tries: int = TRIES) -> RDBStorage:
    """Open the database at `url`, such as `sqlite:///search.db`, and make its tables if it has none.

    Raises `ValueError` if it cannot be opened; the message leaves out the URL, with its password.
    """
    is_file = url.startswith("sqlite")
    engine = {"connect_args": {"timeout": LOCK_SECONDS}} if is_file else {"pool_pre_ping": True}
    try:
        return RDBStorage(for_sqlalchemy(url), engine_kwargs=engine)
    except (SQLAlchemyError, StorageInternalError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        if "already exists" in reason and tries > 1:
            time.sleep(RETRY_SECONDS)
            return open_database(url, tries - 1)
        fix = "give a URL such as sqlite:///search.db"
        if isinstance(error, ImportError):
            fix = "install the database's driver; PostgreSQL's comes with pip install 'nasseg[postgresql]'"
        elif not is_file:
            fix = "give --storage the URL with its password, which is not saved, or set PGPASSWORD or ~/.pgpass"
        raise ValueError(f"storage cannot be opened ({reason}); {fix}") from error
