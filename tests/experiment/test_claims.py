from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from nasseg.experiment.claims import Claims
from nasseg.experiment.shared import open_database


def claimers(folder: Path, *searches: str, study: str = "study") -> list[Claims]:
    engine = open_database(f"sqlite:///{folder}/claims.db").engine
    return [Claims(engine, study, search) for search in searches]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return open_database(f"sqlite:///{tmp_path_factory.mktemp('claims')}/claims.db").engine


STUDIES = count()


@settings(max_examples=20)
@given(claims=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=20))
def test_a_name_belongs_to_whoever_claimed_it_first(engine: Engine, claims: list[tuple[int, int]]) -> None:
    study = f"study {next(STUDIES)}"
    searches = [Claims(engine, study, search) for search in "abc"]
    owner: dict[int, int] = {}
    for search, name in claims:
        assert searches[search].claim(f"key {name}") == (owner.setdefault(name, search) == search)
    for name, search in owner.items():
        assert {each.owner(f"key {name}") for each in searches} == {"abc"[search]}


def test_of_claims_at_the_same_time_exactly_one_succeeds(tmp_path: Path) -> None:
    names = [f"key {number}" for number in range(40)]

    def claim(claims: Claims) -> list[str]:
        shuffled = Random(0).sample(names, len(names))
        return [name for name in shuffled if claims.claim(name)]

    with ThreadPoolExecutor() as pool:
        won = Counter(name for names in pool.map(claim, claimers(tmp_path, "a", "b", "c")) for name in names)
    assert won == Counter(names)


def test_searches_are_numbered_as_they_join_and_keep_their_number(tmp_path: Path) -> None:
    one, two, outside = claimers(tmp_path, "one", "two", "outside")
    assert [claims.join() for claims in (one, two, one)] == [0, 1, 0]
    assert [claims.number for claims in (one, two, outside)] == [0, 1, None]
    assert outside.members == ["one", "two"]


def test_others_hear_of_what_is_noted_and_of_the_last_of_it_again(tmp_path: Path) -> None:
    one, two = claimers(tmp_path, "one", "two")
    for number, claims in enumerate((one, two)):
        assert claims.join() == number
    for name in ("a", "b", "c"):
        one.claim(name)
    assert two.changes() == {}
    one.note({"a": 1})
    one.note({"b": 2, "c": None})
    assert two.changes() == {"a": 1, "b": 2, "c": None}
    assert two.changes() == {"b": 2, "c": None}
    one.note({"a": 3})
    assert two.changes() == {"a": 3, "b": 2, "c": None}
    assert two.changes() == {"a": 3}
    assert one.changes() == {}
    two.note({"a": 9})
    assert one.changes() == {}, "a is not the other's to write"


def test_a_search_that_was_resumed_numbers_on_and_may_skip_what_it_reads_anyway(tmp_path: Path) -> None:
    one, two = claimers(tmp_path, "one", "two")
    for claims in (one, two):
        claims.join()
    for number, name in enumerate(("a", "b")):
        one.claim(name)
        one.note({name: number})
    again, other = claimers(tmp_path, "one", "two")
    other.skip()
    assert set(other.changes()) == {"b"}
    again.note({"a": 0})
    assert set(other.changes()) == {"a", "b"}
    assert set(other.changes()) == {"a"}


def test_studies_do_not_see_each_others_claims(tmp_path: Path) -> None:
    (one,), (other,) = (claimers(tmp_path, "search", study=study) for study in ("one", "other"))
    assert one.claim("a")
    assert other.owner("a") is None
