"""Databases that hold the records of searches, and the studies in them, which several searches may share."""

from __future__ import annotations

import time
import warnings
import weakref

import optuna
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from nasseg import plugins
from nasseg.database import for_sqlalchemy
from nasseg.experiment.claims import FOUNDER, Claims, make_table
from nasseg.foreign import damaged
from nasseg.planning.config import SearchConfig
from nasseg.planning.objective import Objective
from nasseg.planning.options import SearchOptions

TRIES, RETRY_SECONDS = 5, 0.5
"""Of what another search may be making at the same moment: the tables of a new database, a new study."""
LOCK_SECONDS = 60
"""That SQLite waits for other processes to have written."""
CONFIG = "config"
"""Attribute of a study: the options and the plan of the search that made it."""


def open_database(url: str, tries: int = TRIES) -> RDBStorage:
    """Open the database at `url`, such as `sqlite:///search.db`, and make its tables if it has none.

    Its connections are closed once nobody holds it. Raises `ValueError` if it cannot be opened; the message leaves out
    the URL, with its password.
    """
    is_file = url.startswith("sqlite")
    engine = {"connect_args": {"timeout": LOCK_SECONDS}} if is_file else {"pool_pre_ping": True}
    try:
        storage = RDBStorage(for_sqlalchemy(url), engine_kwargs=engine)
        weakref.finalize(storage, storage.engine.dispose)
        make_table(storage.engine)
        return storage
    except (SQLAlchemyError, StorageInternalError, ImportError) as error:
        if "already exists" in str(error) and tries > 1:
            time.sleep(RETRY_SECONDS)
            return open_database(url, tries - 1)
        reason = str(error).strip().splitlines()[0]
        fix = "give a URL such as sqlite:///search.db"
        if isinstance(error, ImportError):
            fix = "install the database's driver; PostgreSQL's comes with pip install 'nasseg[postgresql]'"
        elif not is_file:
            fix = "give --storage the URL with its password, which is not saved, or set PGPASSWORD or ~/.pgpass"
        raise ValueError(f"storage cannot be opened ({reason}); {fix}") from error


def create_study(
    storage: BaseStorage, name: str, objective: Objective, search: str | None = None, config: SearchConfig | None = None
) -> None:
    """Create a study with the objective's metrics for a search and, if others may join it, with its options and plan.

    Raises Optuna's `DuplicatedStudyError` if there is one of this name.
    """
    names, directions = zip(*objective.metrics.items(), strict=True)
    study = optuna.create_study(storage=storage, study_name=name, directions=directions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(names))
    if search is not None:
        study.set_user_attr(FOUNDER, search)
    if config is not None:
        shown = config.model_copy(update={"storage": None, "study": None, "ray_address": None})
        study.set_user_attr(CONFIG, shown.model_dump(mode="json"))


def found(config: SearchConfig, objective: Objective) -> bool:
    """Create the study that a search is to write, and make the search its first; `False` if another has done so."""
    assert config.storage is not None
    assert config.study is not None
    storage = open_database(config.storage)
    try:
        create_study(storage, config.study, objective, config.search_id, config)
    except DuplicatedStudyError:
        return False
    join(config)
    return True


def join(config: SearchConfig) -> None:
    """Make a search one of those that write its study."""
    assert config.storage is not None
    assert config.study is not None
    assert config.search_id is not None
    storage = open_database(config.storage)
    study = optuna.load_study(storage=storage, study_name=config.study)
    Claims(storage.engine, str(study.user_attrs[FOUNDER]), config.search_id).join()


def to_join(options: SearchOptions) -> SearchConfig | None:
    """Return what the study that the options name is searched with; `None` if there is no such study.

    It may be someone else's: its space is taken only if it is registered, or named by the options too. Raises
    `ValueError` if the study says nothing, as one of another program does.
    """
    if options.storage is None or options.study is None:
        return None
    storage = open_database(options.storage)
    where = f"study {options.study!r}"
    try:
        study = optuna.load_study(storage=storage, study_name=options.study)
    except KeyError:
        return None
    for _ in range(TRIES):
        if (content := study.user_attrs.get(CONFIG)) is not None:
            break
        time.sleep(RETRY_SECONDS)
    else:
        raise ValueError(f"{where} does not say how it is searched, so it cannot be joined; name another with --study")
    with damaged(where, "name another with --study"):
        config = SearchConfig.model_validate(content)
    plugins.check_space(config.space, options.space if "space" in options.model_fields_set else None, where)
    return config
