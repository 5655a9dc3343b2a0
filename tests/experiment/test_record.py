from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import text

from nasseg.experiment.claims import Claims
from nasseg.experiment.record import Record
from nasseg.experiment.shared import create_study, open_database
from nasseg.planning.candidates import run_name
from nasseg.planning.job import Candidate, Job, JobResult, Outcome, Task
from nasseg.planning.objective import Objective
from tests.planning.made_up import Cell, CellSpace, MadeUpWorker, key_of

SPACE = CellSpace()
TOP = 30


def candidate(*branches: int, label: str | None = None) -> Candidate:
    cell = Cell(branches=branches)
    return Candidate(key=key_of(cell), choice=cell.model_dump(mode="json"), label=label)


Known = tuple[Candidate, dict[int, Outcome], dict[int, Outcome]]


def known(candidate: Candidate, proxy: dict[int, Outcome] = {}, full: dict[int, Outcome] = {}) -> Known:  # noqa: B006
    return candidate, proxy, full


def recorded(record: Record) -> list[Known]:
    return [(trial.candidate, trial.proxy, trial.full) for trial in record.load()]


MIOU = Objective(weight=0, reference_cost=1)


def run(record: Record, task: Task, *candidates: Candidate, start: int = 0, stop: int = 10, seed: int = 0) -> JobResult:
    job = Job(number=0, task=task, candidates=candidates, seed=seed, start_step=start, stop_step=stop)
    record.start(job)
    result = MadeUpWorker(broken=frozenset({"4-4-4"})).run(job)
    record.add(result)
    return result


def open_record(folder: Path, objective: Objective = MIOU) -> Record:
    return Record.open_journal(folder / "study.journal", SPACE, TOP, objective)


def study_in(folder: Path) -> optuna.Study:
    """What a reader that knows nothing of this package finds in the journal."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
    return optuna.load_study(study_name="nasseg", storage=optuna.storages.JournalStorage(backend))


def states(folder: Path) -> dict[str, tuple[TrialState, dict[int, float], float | None]]:
    """The last trial of each key."""
    return {t.user_attrs["key"]: (t.state, t.intermediate_values, t.value) for t in study_in(folder).trials}


def test_trials_are_told_as_what_they_are(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    top, low, broken = candidate(0, 1, 2), candidate(1, 1, 1), candidate(4, 4, 4)
    first = run(record, "proxy", top, low, broken)
    second = run(record, "proxy", top, start=10, stop=TOP)
    a, b = first.outcomes[0].miou, second.outcomes[0].miou
    assert states(tmp_path) == {
        top.key: (TrialState.COMPLETE, {10: a, TOP: b}, b),
        low.key: (TrialState.RUNNING, {10: first.outcomes[1].miou}, None),
        broken.key: (TrialState.FAIL, {}, None),
    }
    record.close()
    assert states(tmp_path)[low.key][0] == TrialState.PRUNED
    assert study_in(tmp_path).best_trial.params == {"branches.0": 0, "branches.1": 1, "branches.2": 2}


def test_a_front_has_two_values_and_no_intermediate_ones(tmp_path: Path) -> None:
    objective = Objective(aim="pareto", reference_cost=1)
    record = open_record(tmp_path, objective)
    top, low = candidate(0, 1, 2), candidate(1, 1, 1)
    run(record, "proxy", top, low)
    values = run(record, "proxy", top, start=10, stop=TOP).outcomes[0]
    record.close()
    study = study_in(tmp_path)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["mIoU", "MAdds"]
    assert [(t.state.name, t.values, t.intermediate_values) for t in study.trials] == [
        ("COMPLETE", [values.miou, 100.0], {}),
        ("PRUNED", None, {}),
    ]


def test_limits_are_optunas_constraints(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    over, reference, kept = (
        candidate(*branches, label=label).model_copy(update={"constraints": {"params": value}})
        for branches, label, value in (((3, 3, 3), None, 0.5), ((1, 1, 1), "aspp", 0.1), ((0, 0, 1), None, -0.25))
    )
    for _ in range(2):
        record.reject([over])
    outcomes = run(record, "proxy", reference, kept, stop=TOP).outcomes
    record = open_record(tmp_path)
    assert recorded(record) == [known(over), known(reference, {TOP: outcomes[0]}), known(kept, {TOP: outcomes[1]})]
    assert [(t.state.name, t.constraints) for t in study_in(tmp_path).trials] == [
        ("PRUNED", {"params": 0.5}),
        ("COMPLETE", {"params": 0.1}),
        ("COMPLETE", {"params": -0.25}),
    ]
    assert study_in(tmp_path).best_trial.user_attrs["key"] == kept.key


def test_load_gives_back_what_was_added(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    aspp, other = candidate(0, 0, 0, label="aspp"), candidate(1, 2, 3)
    prepared = run(record, "prepare", aspp, stop=100).outcomes[0]
    proxy = run(record, "proxy", aspp, other).outcomes
    full = run(record, "full", other, stop=100, seed=1).outcomes[0]
    record.start(Job(number=1, task="proxy", candidates=(candidate(1, 1, 1),), seed=0, start_step=0, stop_step=10))
    expected = [
        known(aspp, {10: proxy[0]}, {0: prepared}),
        known(other, {10: proxy[1]}, {1: full}),
        known(candidate(1, 1, 1)),
    ]
    assert recorded(record) == expected
    assert recorded(open_record(tmp_path)) == expected


def test_a_pruned_candidate_can_be_taken_up_again(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    first, second = candidate(0, 1, 2), candidate(1, 1, 1)
    low = run(record, "proxy", first, second).outcomes
    record.close()
    record = open_record(tmp_path)
    top = run(record, "proxy", first, start=10, stop=TOP).outcomes[0]
    assert recorded(record) == [known(first, {10: low[0], TOP: top}), known(second, {10: low[1]})]
    assert states(tmp_path)[first.key] == (TrialState.COMPLETE, {10: low[0].miou, TOP: top.miou}, top.miou)


def test_other_readers_find_the_parameters_of_all_trials_also_of_those_taken_up_again(tmp_path: Path) -> None:
    record, low = open_record(tmp_path), candidate(1, 2, 3)
    run(record, "proxy", low)
    record.close()
    run(open_record(tmp_path), "proxy", low, start=10, stop=TOP)
    first, again = study_in(tmp_path).trials
    assert first.params == again.params == {"branches.0": 1, "branches.1": 2, "branches.2": 3}
    assert first.distributions == again.distributions


def test_closing_twice_leaves_the_journal_as_it_is(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    run(record, "proxy", candidate(1, 1, 1))
    record.close()
    before = (tmp_path / "study.journal").read_bytes()
    open_record(tmp_path).close()
    assert (tmp_path / "study.journal").read_bytes() == before


def test_looking_at_a_record_changes_nothing_even_where_its_last_line_is_unfinished(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    run(record, "proxy", candidate(0, 1, 2))
    journal = tmp_path / "study.journal"
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 8, "worker')
    before = journal.read_bytes()
    assert recorded(open_record(tmp_path)) == recorded(record)
    assert journal.read_bytes() == before


def test_a_journal_cut_anywhere_goes_on_from_what_is_whole(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    trials = [candidate(0, 0, i) for i in range(3)]
    for each in trials:
        run(record, "proxy", each)
    whole = (tmp_path / "study.journal").read_bytes()
    for cut in range(whole.index(b"\n") + 1, len(whole), 97):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "study.journal").write_bytes(whole[:cut])
        resumed = open_record(folder)
        found = resumed.load()
        assert [t.candidate for t in found] == trials[: len(found)]
        added = run(resumed, "proxy", trials[2])
        assert recorded(open_record(folder))[-1] == known(trials[2], {10: added.outcomes[0]})


@pytest.mark.slow
def test_a_lock_left_by_a_killed_process_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasseg.experiment.record.LOCK_GRACE_SECONDS", 3)
    run(open_record(tmp_path), "proxy", candidate(0, 0, 1))
    (tmp_path / "study.journal.lock").symlink_to(tmp_path / "study.journal")
    record = open_record(tmp_path)
    run(record, "proxy", candidate(0, 0, 2))
    assert len(record.load()) == 2


def test_a_database_by_url_holds_the_same(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/search.db"
    outcome = run(Record.open_url(url, "run", SPACE, TOP, MIOU), "proxy", candidate(0, 1, 2)).outcomes[0]
    assert recorded(Record.open_url(url, "run", SPACE, TOP, MIOU)) == [known(candidate(0, 1, 2), {10: outcome})]


def test_relaxations_are_remembered_as_they_came(tmp_path: Path) -> None:
    record, worker = open_record(tmp_path), MadeUpWorker(broken_seeds=frozenset({7}))
    assert record.relaxations() == []
    results = []
    for seed in (7, 0):
        job = Job(number=seed, task="relax", candidates=(), seed=seed, start_step=0, stop_step=10)
        record.start(job)
        results.append(worker.run(job))
        record.add(results[-1])
    assert (results[0].message, results[0].found) == ("loss is nan", ())
    assert open_record(tmp_path).relaxations() == record.relaxations() == results
    assert record.load() == []


def sharing(folder: Path, *searches: str) -> list[Record]:
    """Open one study in a database for several searches, which the first has founded."""
    url = f"sqlite:///{folder}/search.db"
    records = []
    for search in searches:
        storage = open_database(url)
        if not records:
            create_study(storage, "shared", MIOU, search)
        Claims(storage.engine, searches[0], search).join()
        records.append(Record(storage, "shared", SPACE, TOP, MIOU, search=search))
    return records


def told(record: Record) -> dict[str, tuple[dict[int, Outcome], dict[int, Outcome], bool]]:
    return {trial.key: (trial.proxy, trial.full, trial.elsewhere) for trial in record.news()}


def test_searches_of_one_study_read_what_the_others_have_written_once(tmp_path: Path) -> None:
    one, two = sharing(tmp_path, "one", "two")
    first, second = candidate(0, 1, 2), candidate(1, 1, 1)
    low = run(one, "proxy", first).outcomes[0]
    assert told(two) == {first.key: ({10: low}, {}, True)}
    high = run(one, "proxy", first, start=10, stop=TOP).outcomes[0]
    one.reject([candidate(3, 3, 3).model_copy(update={"constraints": {"params": 0.5}})])
    assert two.place.claim(run_name(first.key, 1))
    full = run(two, "full", first, stop=100, seed=1).outcomes[0]
    assert told(two) == {first.key: ({10: low, TOP: high}, {}, True), "3-3-3": ({}, {}, True)}
    assert told(one) == {first.key: ({10: low, TOP: high}, {1: full}, False)}
    run(two, "proxy", second)
    # What was written last may not have been whole, so it is read again; what is older is not.
    assert (set(told(one)), set(told(two))) == ({first.key, second.key}, {"3-3-3"})
    assert (set(told(one)), set(told(two))) == ({second.key}, {"3-3-3"})


def test_a_candidate_has_one_trial_whoever_starts_or_rejects_it(tmp_path: Path) -> None:
    one, two = sharing(tmp_path, "one", "two")
    beyond = candidate(3, 3, 3).model_copy(update={"constraints": {"params": 0.5}})
    for record in (one, two):
        record.start(Job(number=1, task="prepare", candidates=(candidate(0, 0, 0),), seed=0, start_step=0, stop_step=9))
        record.reject([beyond])
    assert [trial.key for trial in one.load()] == ["0-0-0", "3-3-3"]
    study = optuna.load_study(study_name="shared", storage=open_database(f"sqlite:///{tmp_path}/search.db"))
    assert [(t.user_attrs["key"], t.user_attrs["search"]) for t in study.trials] == [("0-0-0", "one"), ("3-3-3", "one")]


def test_a_preparation_that_each_search_has_for_itself_is_recorded_once(tmp_path: Path) -> None:
    one, two = sharing(tmp_path, "one", "two")
    aspp = candidate(0, 0, 0, label="aspp")
    job = Job(number=1, task="prepare", candidates=(aspp,), seed=0, start_step=0, stop_step=100)
    results = [MadeUpWorker().run(job)] * 2
    other = results[0].outcomes[0].model_copy(update={"miou": 0.5})
    assert one.place.claim(run_name(aspp.key, 0))
    one.start(job)
    two.add(results[0].model_copy(update={"outcomes": (other,)}))
    assert one.load()[0].full == {0: other}, "as long as the first has none"
    one.add(results[0])
    two.add(results[0].model_copy(update={"outcomes": (other,)}))
    assert two.load()[0].full == {0: results[0].outcomes[0]}


def test_history_and_latencies_are_each_searchs_own_and_closing_leaves_others_trials_open(tmp_path: Path) -> None:
    records = sharing(tmp_path, "one", "two")
    for seconds, record in enumerate(records, start=1):
        record.note_best(seconds, 0.5)
        run(record, "proxy", candidate(0, 0, seconds))
    assert [record.history for record in records] == [[(1, 0.5)], [(2, 0.5)]]
    records[0].close()
    study = optuna.load_study(study_name="shared", storage=open_database(f"sqlite:///{tmp_path}/search.db"))
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "RUNNING"]


def test_a_search_that_was_resumed_knows_which_trials_are_its_own(tmp_path: Path) -> None:
    one, two = sharing(tmp_path, "one", "two")
    run(one, "proxy", candidate(0, 1, 2))
    run(two, "proxy", candidate(1, 1, 1))
    again = Record.open_url(f"sqlite:///{tmp_path}/search.db", "shared", SPACE, TOP, MIOU, "two")
    assert [(trial.key, trial.elsewhere) for trial in again.load()] == [("0-1-2", True), ("1-1-1", False)]
    assert again.place.number == 1
    assert set(told(again)) <= {"0-1-2"}
    assert not again.place.claim("0-1-2")
    assert again.place.claim("1-1-1")


def test_a_database_that_fails_is_said_in_a_line(tmp_path: Path) -> None:
    (record,) = sharing(tmp_path, "one")
    with open_database(f"sqlite:///{tmp_path}/search.db").engine.begin() as connection:
        for table in ("nasseg_claims", "study_user_attributes"):
            connection.execute(text(f"DROP TABLE {table}"))
    for use in (
        lambda: record.note_best(1.0, 0.5),
        lambda: record.place.claim("a"),
        record.news,
        lambda: record.history,
    ):
        with pytest.raises(
            ConnectionError, match=r"^the database failed \(.*no such table: \w+\); see to it, then go on"
        ):
            use()


def test_a_study_of_another_search_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/search.db"
    for search in ("one", None):
        name = f"study of {search}"
        run(Record.open_url(url, name, SPACE, TOP, MIOU, search), "proxy", candidate(0, 1, 2))
        assert len(Record.open_url(url, name, SPACE, TOP, MIOU, search).load()) == 1
        with pytest.raises(ValueError, match=f"{name}. belongs to another search; name another one with"):
            Record.open_url(url, name, SPACE, TOP, MIOU, "two")
