"""Joining a study: what is taken from it, and what is refused."""

import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from nasseg.experiment.begin import check_content
from nasseg.experiment.claims import Claims
from nasseg.experiment.shared import found, join, open_database, to_join
from nasseg.jobs.context import Problem
from nasseg.planning.config import SearchConfig
from nasseg.planning.options import SearchOptions
from tests.jobs.tiny import DATA, SPACE, latency_table, tiny_config


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with the study `mine`, of which a search on tiny street scenes is the first."""
    url = f"sqlite:///{tmp_path_factory.mktemp('shared')}/search.db"
    config = tiny_config().model_copy(update={"storage": url, "study": "mine", "search_id": "first"})
    problem = Problem(config)
    config = config.model_copy(update={"fingerprints": problem.fingerprints})
    assert found(config, problem.objective)
    assert not found(config.model_copy(update={"search_id": "other"}), problem.objective), "it has a first search"
    return url


def options(url: str, **given: Any) -> SearchOptions:
    return SearchOptions(**{"space": SPACE, "storage": url, "study": "mine", **given})


def first(url: str, **given: Any) -> SearchConfig:
    config = to_join(options(url, **given))
    assert config is not None
    return config


def test_a_study_that_is_not_there_or_not_named_is_not_joined(url: str) -> None:
    assert to_join(options(url, study="new")) is None
    assert to_join(options(url, study=None)) is None
    assert to_join(SearchOptions()) is None


def test_the_study_says_how_it_is_searched_and_not_where(url: str) -> None:
    config = first(url)
    assert config.plan == tiny_config().plan
    assert (config.storage, config.study, config.ray_address, config.search_id) == (None, None, None, "first")
    database = open_database(url)
    attributes = optuna.load_study(storage=database, study_name="mine").user_attrs
    assert "search.db" not in str(attributes)


def test_what_makes_scores_comparable_is_the_studys_and_the_rest_as_asked(url: str) -> None:
    asked = options(url, budget="2h", concurrency=3, device="cpu", runner="in-process")
    joined = first(url).joined(asked, "mine")
    plan = tiny_config().plan
    assert (joined.rungs, joined.full_steps, joined.seeds, joined.image_scale) == (plan.rungs, plan.full_steps, 2, 1.0)
    assert (joined.data, joined.sampler, joined.objective, joined.finalists) == (DATA, "random", "score", 1)
    assert (str(joined.budget), joined.concurrency, joined.runner) == ("2h", 3, "in-process")
    assert (joined.storage, joined.study) == (url, "mine")
    left_out = first(url).joined(options(url), "mine")
    assert (str(left_out.budget), left_out.concurrency, left_out.runner) == ("5trials", None, "ray")


def test_the_plan_of_another_machine_is_made_comparable(url: str) -> None:
    other = tiny_config("2h", rungs=(1, 2), full_steps=9, views=1, seeds=1, concurrency=7, threads=3, proxy_share=0.5)
    plan = other.comparable(first(url)).plan
    expected = tiny_config().plan.model_copy(update={"concurrency": 7, "threads": 3, "proxy_share": 0.5})
    assert plan == expected


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"seed": 1}, "seed is 1, but 0 in study 'mine'; leave it out, or name another study"),
        ({"rungs": (2, 5)}, "rungs is (2, 5), but (2, 6) in study 'mine'; leave it out, or name another study"),
        ({"max_params": "1M"}, "max_params is 1M, but None in study 'mine'; leave it out, or name another study"),
        (
            {"objective": "pareto"},
            "objective is pareto, but score in study 'mine'; leave it out, or name another study",
        ),
    ],
)
def test_an_option_that_differs_is_refused(url: str, given: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        first(url).joined(options(url, **given), "mine")
    assert str(refused.value) == line


def test_other_data_and_another_latency_table_are_refused(url: str, tmp_path: Path) -> None:
    latency_table((64, 96), 13).save(tmp_path / "table.json")
    for given, line in (
        (
            {"data": "streets:size=64x96,train=9,val=4,test=4"},
            r"split 'train' of streets\S+ is not what study 'mine' is",
        ),
        ({"latency": str(tmp_path / "table.json")}, "study 'mine' counts MAdds; leave out --latency"),
    ):
        problem = Problem(first(url).joined(options(url, device="cpu", **given), "mine"))
        with pytest.raises(ValueError, match=line):
            check_content(problem, first(url))
    check_content(Problem(first(url).joined(options(url, device="cpu"), "mine")), first(url))


def test_a_study_by_latency_asks_for_the_same_table(url: str, tmp_path: Path) -> None:
    table = latency_table((64, 96), 13)
    table.save(tmp_path / "table.json")
    shutil.copyfile(tmp_path / "table.json", tmp_path / "copy.json")
    by_table = first(url)
    assert by_table.fingerprints is not None
    fingerprints = by_table.fingerprints.model_copy(update={"latency": table.fingerprint})
    by_table = by_table.model_copy(update={"latency": "/elsewhere/table.json", "fingerprints": fingerprints})
    problem = Problem(by_table.joined(options(url, device="cpu"), "mine"))
    with pytest.raises(
        ValueError,
        match=r"study 'mine' counts latency by another table; give --latency with latency\.json of its first",
    ):
        check_content(problem, by_table)
    check_content(
        Problem(by_table.joined(options(url, device="cpu", latency=str(tmp_path / "copy.json")), "mine")), by_table
    )


def test_a_study_does_not_decide_which_code_runs(url: str) -> None:
    with pytest.raises(ValueError, match=r"study 'mine': .*tests.jobs.tiny:TinySpace"):
        to_join(SearchOptions(storage=url, study="mine"))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "study 'odd' does not say how it is searched, so it cannot be joined; name another with --study"),
        ({"space": "dpc"}, "study 'odd' is damaged: "),
        ([1], "study 'odd' is damaged"),
    ],
)
def test_a_study_of_another_program_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, line: str
) -> None:
    monkeypatch.setattr("nasseg.experiment.shared.RETRY_SECONDS", 0.0)
    url = f"sqlite:///{tmp_path}/odd.db"
    study = optuna.create_study(storage=open_database(url), study_name="odd")
    if content is not None:
        study.set_user_attr("config", content)
    with pytest.raises(ValueError, match=line):
        to_join(SearchOptions(storage=url, study="odd"))


def test_tables_that_another_search_makes_at_the_moment_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nasseg.experiment.shared.RETRY_SECONDS", 0.0)
    refusals = iter(["pg_type_typname_nsp_index\nKey (typname)=(trials) already exists."] * 2)

    def make_table(engine: Engine) -> None:
        if (reason := next(refusals, None)) is not None:
            raise IntegrityError(reason, None, Exception(reason))

    monkeypatch.setattr("nasseg.experiment.shared.make_table", make_table)
    assert open_database(f"sqlite:///{tmp_path}/a.db").get_all_studies() == []
    refusals = iter(["disk is broken"])
    with pytest.raises(ValueError, match=r"storage cannot be opened \(.*disk is broken"):
        open_database(f"sqlite:///{tmp_path}/a.db")


def test_who_joins_is_numbered(url: str) -> None:
    for number, search in enumerate(("second", "third"), start=1):
        join(first(url).model_copy(update={"storage": url, "study": "mine", "search_id": search}))
        assert Claims(open_database(url).engine, "first", search).number == number
