import pytest

from nasseg.database import for_sqlalchemy, given_again, without_password


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("sqlite:///search.db", "sqlite:///search.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("postgresql://me@host:5432/runs", "postgresql://me@host:5432/runs"),
        ("postgresql://me:secret@host:5432/runs", "postgresql://me@host:5432/runs"),
        ("postgresql://me:se%40cr%2Fet@host/runs?sslmode=require", "postgresql://me@host/runs?sslmode=require"),
        ("postgresql://host/runs?user=me&password=secret", "postgresql://host/runs?user=me"),
        ("mysql+pymysql://me@host/runs?PASSWD=secret", "mysql+pymysql://me@host/runs"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dsecret", "mssql+pyodbc:///"),
    ],
)
def test_a_password_is_left_out(url: str, public: str) -> None:
    assert without_password(url) == public
    assert without_password(public) == public


@pytest.mark.parametrize(
    ("url", "opened"),
    [
        ("postgresql://me:secret@host/runs", "postgresql+psycopg://me:secret@host/runs"),
        ("postgresql+psycopg://me@host/runs", "postgresql+psycopg://me@host/runs"),
        ("postgresql+psycopg2://me@host/runs", "postgresql+psycopg2://me@host/runs"),
        ("sqlite:///postgresql://", "sqlite:///postgresql://"),
    ],
)
def test_postgresql_is_opened_by_the_driver_that_the_extra_installs(url: str, opened: str) -> None:
    assert for_sqlalchemy(url) == opened


def test_what_is_no_url_is_not_repeated() -> None:
    for text in ("me:secret@host", "postgresql:/me:secret@host/runs", "postgresql://me:secret@host:port/runs"):
        with pytest.raises(ValueError, match=r"^a database needs a URL such as") as caught:
            without_password(text)
        assert "secret" not in str(caught.value)


def test_a_url_given_again_brings_its_password() -> None:
    saved, given = "postgresql://me@host/runs", "postgresql://me:secret@host/runs"
    assert given_again(saved, given) == given
    assert given_again(None, None) is None


def test_a_database_that_a_file_names_alone_is_not_opened() -> None:
    with pytest.raises(ValueError, match=r"record is in sqlite:////home/me/\.x; if you trust that, .* with --storage"):
        given_again("sqlite:////home/me/.x", None)


@pytest.mark.parametrize(
    ("saved", "given", "message"),
    [
        (
            "postgresql://me@host/runs",
            "postgresql://me:secret@elsewhere/runs",
            "the search's record is in postgresql://me@host/runs, not in postgresql://me@elsewhere/runs; give the same",
        ),
        (
            None,
            "postgresql://me:secret@host/runs",
            "the search's record is in its folder, not in postgresql://me@host/runs; leave out --storage",
        ),
    ],
)
def test_another_database_is_refused_without_a_password(saved: str | None, given: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        given_again(saved, given)
