"""Which of the searches that write one study has what of it, and what each has written of late."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from optuna import Study
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from nasseg.experiment.outages import answering

_TABLES = MetaData()
_CLAIMS = Table(
    "nasseg_claims",
    _TABLES,
    Column("study", String(64), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("search", String(64), nullable=False),
    Column("trial", Integer),
    Column("written", Integer),
    Index("nasseg_claims_written", "study", "search", "written"),
)
_COLUMNS = _CLAIMS.c


def make_table(engine: Engine) -> None:
    """Make the table of claims in a database that has none."""
    _TABLES.create_all(engine)


class Claims:
    """The claims of the searches of a study, known by identifiers, in the database of an Optuna storage.

    A name belongs to the search that claims it first: the database takes each once. A search also numbers what it is
    about to write, and the others read on from the last number that they saw. That one they read again, as its content
    may not have been there yet; what has a lower number is whole, as a search writes one after another.
    """

    def __init__(self, engine: Engine, study: str, search: str) -> None:
        self._engine, self._study, self._search = engine, study, search
        self._own: set[str] = set()
        self._seen: dict[str, int] = {}
        with engine.connect() as connection:
            self._written = self._last_written(connection, search)

    def claim(self, name: str) -> bool:
        """Whether what is named is this search's, which it is from now on if nobody has claimed it."""
        if name in self._own:
            return True
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(_CLAIMS).values(study=self._study, name=name, search=self._search))
        except IntegrityError:
            if self.owner(name) != self._search:
                return False
        self._own.add(name)
        return True

    def owner(self, name: str) -> str | None:
        """Return the search that has claimed a name."""
        with self._engine.connect() as connection:
            owner: str | None = connection.scalar(select(_COLUMNS.search).where(*self._of(name=name)))
            return owner

    def join(self) -> int:
        """Make this search one of the study's; returns its number among them."""
        return next(number for number in count() if self.claim(f"search {number}"))

    @property
    def number(self) -> int | None:
        """The number of this search among the study's, if it is one of them."""
        members = self.members
        return members.index(self._search) if self._search in members else None

    @property
    def members(self) -> list[str]:
        """The searches of the study, in the order in which they joined."""
        found: list[str] = []
        while (search := self.owner(f"search {len(found)}")) is not None:
            found.append(search)
        return found

    def note(self, trials: Mapping[str, int | None]) -> None:
        """Tell the others to look at what is named, if it is this search's, and in which Optuna trial it is, if any."""
        self._written += 1
        with self._engine.begin() as connection:
            for name, trial in trials.items():
                mine = self._of(name=name, search=self._search)
                connection.execute(update(_CLAIMS).where(*mine).values(trial=trial, written=self._written))

    def skip(self) -> None:
        """Take all that the others have written so far as known."""
        with self._engine.connect() as connection:
            self._seen = {search: self._last_written(connection, search) for search in self._others()}

    def changes(self) -> dict[str, int | None]:
        """Return what the others have written since the last call, by name, with the Optuna trial that it is in."""
        changed: dict[str, int | None] = {}
        for search in self._others():
            seen = self._seen.get(search, 0)
            new = select(_COLUMNS.name, _COLUMNS.trial, _COLUMNS.written).where(
                *self._of(search=search), _COLUMNS.written >= seen
            )
            with self._engine.connect() as connection:
                rows = connection.execute(new).all()
            changed |= {name: trial for name, trial, _ in rows}
            self._seen[search] = max((written for *_, written in rows), default=seen)
        return changed

    def _of(self, **values: str) -> list[ColumnElement[bool]]:
        """Return the conditions for rows of this study."""
        return [_COLUMNS[name] == value for name, value in {"study": self._study, **values}.items()]

    def _others(self) -> list[str]:
        return [search for search in self.members if search != self._search]

    def _last_written(self, connection: Connection, search: str) -> int:
        last = select(func.max(_COLUMNS.written)).where(*self._of(search=search))
        return connection.scalar(last) or 0


FOUNDER = "search"
"""Attribute of a study and of its trials: the identifier of the search that made them."""


class Place:
    """The place of a search in its study: with `claims` among others, without them alone.

    `number` counts the searches of the study. Attributes that each search has for itself begin with the `prefix`, and
    its trials have the attributes of `mark`.
    """

    def __init__(self, search: str | None, founder: str | None, number: int = 0, claims: Claims | None = None) -> None:
        self.number, self._founder, self._search, self._claims = number, founder, search, claims
        self.prefix = "" if search == founder else f"{search} "
        self.mark: dict[str, str] = {} if claims is None or search is None else {FOUNDER: search}

    @classmethod
    def of(cls, storage: BaseStorage, study: Study, search: str | None) -> Place:
        """Find the place of a search, known by an identifier; raises `ValueError` if it has none in this study."""
        founder, number, claims = study.user_attrs.get(FOUNDER), None, None
        if search is not None and isinstance(storage, RDBStorage):
            claims = Claims(storage.engine, str(founder), search)
            number = claims.number
        if number is None and search != founder:
            name = study.study_name
            raise ValueError(f"study {name!r} belongs to another search; name another one with --study, or none")
        return cls(search, founder, number or 0, claims)

    def owns(self, recorded: FrozenTrial) -> bool:
        """Whether a trial is this search's."""
        return self._claims is None or recorded.user_attrs.get(FOUNDER, self._founder) == self._search

    def claim(self, name: str) -> bool:
        """Whether what is named is this search's, from now on if nobody has claimed it (`Claims.claim`)."""
        with answering():
            return self._claims is None or self._claims.claim(name)

    def note(self, trials: Mapping[str, int | None]) -> None:
        """Tell other searches to look at what is named (`Claims.note`)."""
        if self._claims is not None and trials:
            self._claims.note(trials)

    def skip(self) -> None:
        """Take all that other searches have written so far as known."""
        if self._claims is not None:
            self._claims.skip()

    def changes(self) -> dict[str, int | None]:
        """Return what other searches have written since the last call (`Claims.changes`)."""
        return {} if self._claims is None else self._claims.changes()
