"""URLs of databases: leaving out their passwords, and getting these back for a resumed search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, PlainSerializer

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

SECRET_OPTIONS = ("password", "passwd", "pwd", "sslpassword", "odbc_connect")
"""Names of options after `?` that are or may hold a password."""


def without_password(url: str) -> str:
    """Remove the password, if any, from a database URL.

    Raises `ValueError`, which does not repeat the text, if it is not a URL.
    """
    from sqlalchemy.engine import make_url

    public = _public(url)
    return url if public == make_url(url) else public.render_as_string(hide_password=False)


def given_again(saved: str | None, given: str | None) -> str | None:
    """Return the URL of a saved search's database as the user gives it again, with the password, which is not saved.

    Raises `ValueError` if it is another database, or is not given: a file alone, which may be someone else's, decides
    neither where something is written nor to whom a connection is made.
    """
    if given is None and saved is None:
        return None
    if given is None:
        raise ValueError(f"the search's record is in {saved}; if you trust that, give it again with --storage")
    if saved is None:
        raise ValueError(f"the search's record is in its folder, not in {without_password(given)}; leave out --storage")
    if _public(given) != _public(saved):
        raise ValueError(
            f"the search's record is in {without_password(saved)}, not in {without_password(given)}; give the same URL"
        )
    return given


def for_sqlalchemy(url: str) -> str:
    """Name the driver that `nasseg[postgresql]` installs in a PostgreSQL URL that names none."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1) if url.startswith("postgresql://") else url


def _public(url: str) -> URL:
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("a database needs a URL such as sqlite:///search.db or postgresql://user@host/name") from None
    query = {name: value for name, value in parsed.query.items() if name.lower() not in SECRET_OPTIONS}
    return URL.create(parsed.drivername, parsed.username, None, parsed.host, parsed.port, parsed.database, query)


def _checked(url: str) -> str:
    without_password(url)
    return url


DatabaseUrl = Annotated[str, AfterValidator(_checked), PlainSerializer(without_password)]
"""The type of a field whose password stays in memory: it is left out whenever the field is serialised."""
