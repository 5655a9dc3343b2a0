import csv
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from nasseg.experiment.experiment import Experiment
from nasseg.experiment.stopwatch import Stopwatch
from nasseg.graph import load
from nasseg.jobs.context import Context
from nasseg.jobs.worker import Worker
from nasseg.pareto import non_dominated
from nasseg.planning.config import SearchConfig
from nasseg.planning.job import Job, JobResult, Task
from nasseg.planning.options import SearchOptions
from nasseg.report.search import SearchReporter
from nasseg.run_folder import LATENCY_TABLE_FILE, STUDY_FILE
from nasseg.train.model import load_model
from nasseg.train.provenance import Provenance
from tests.conftest import REPOSITORY
from tests.jobs.tiny import RUNGS, SPACE, gradient_config, latency_table, tiny_config

Training = tuple[Task, str, int, int]


def begin(folder: Path, config: SearchConfig | None = None) -> Experiment:
    folder.mkdir()
    config = config or tiny_config()
    config.save(folder)
    if config.latency is not None:
        shutil.copyfile(config.latency, folder / LATENCY_TABLE_FILE)
    return Experiment(config, Context.open(config, folder))


def finish(search: Experiment) -> Experiment:
    search.run(threading.Event(), lambda search: None)
    return search


def resumed(folder: Path) -> Experiment:
    return Experiment.open(folder, space=SPACE)


def outcomes(search: Experiment) -> list[tuple[Any, ...]]:
    return [(t.candidate, dict(t.proxy), dict(t.full)) for t in search.results.trials]


def journal(folder: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(folder / STUDY_FILE)))


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A whole search with its reports."""
    search = begin(tmp_path_factory.mktemp("runs") / "whole")
    with SearchReporter(search) as reporter:
        search.run(threading.Event(), reporter.update)
    return search


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Counter[Training]:
    """Counts what workers train."""
    counted: Counter[Training] = Counter()
    run = Worker.run

    def counting(self: Worker, job: Any) -> Any:
        counted.update((job.task, c.key, job.stop_step, job.seed) for c in job.candidates)
        return run(self, job)

    monkeypatch.setattr(Worker, "run", counting)
    return counted


def test_the_run_folder_holds_all_that_is_promised(done: Experiment) -> None:
    names = {path.name for path in done.folder.iterdir()}
    assert names == {
        "config.yaml",
        "study.journal",
        "spent_seconds.json",
        "best.json",
        "pareto",
        "trials.csv",
        "tensorboard",
        "report.html",
        "log.txt",
        "model.safetensors",
        "checkpoints",
        "features",
    }
    assert SearchConfig.load(done.folder, space=SPACE) == done.config


def test_the_best_is_written_with_where_it_comes_from(done: Experiment) -> None:
    assert done.results.best is not None
    best = load(done.folder / "best.json")
    assert (best.key, best.space, best.choice) == (done.results.best.key, SPACE, done.results.best.candidate.choice)
    provenance = Provenance.read(best)
    assert provenance is not None
    assert (provenance.data.spec, provenance.budget, provenance.seed) == (done.problem.dataset.spec, "5trials", 0)
    assert provenance.miou["end to end, seed 1"] == done.results.best.full[1].miou
    assert provenance.latency == done.latencies[best.key]
    network, _ = load_model(done.folder)
    assert network.architecture.key == best.inference().key


def test_the_best_is_as_good_as_the_reference_in_the_same_measure(done: Experiment) -> None:
    reference = done.results.references["plain"]
    assert done.results.best is not None
    assert set(done.results.best.deciding) == set(reference.deciding) == {0, 1}
    assert done.results.best_score == done.results.score(done.results.best)
    assert (done.results.best_score or 0) >= (done.results.score(reference) or 1)


def test_the_gain_is_that_of_fresh_seeds_which_decided_nothing(done: Experiment) -> None:
    found = next(trial for trial in done.results.ranked if trial.candidate.label is None)
    baseline = next(iter(done.results.references.values()))
    (of_found,), (of_baseline,) = found.fresh.values(), baseline.fresh.values()
    gain = done.results.gain
    assert gain is not None
    assert (gain.found, gain.baseline, gain.seeds) == (found.key, baseline.candidate.label, (1, 1))
    assert gain.miou == pytest.approx((of_found.miou or 0) - (of_baseline.miou or 0))
    assert found.miou == pytest.approx(sum(found.full[seed].miou or 0 for seed in range(2)) / 2)


def test_the_front_is_what_no_other_beats(done: Experiment) -> None:
    assert done.results.best in done.results.front
    final = [trial for trial in done.results.trials if trial.full]
    assert len(final) == 3
    points = [(float(trial.costs.madds or 0), (trial.miou or 0)) for trial in final]
    expected = [final[index] for index in non_dominated(points)]
    assert done.results.front == expected
    files = {path.stem for path in (done.folder / "pareto").iterdir()}
    assert files == {trial.candidate.label or trial.key for trial in expected}


def test_every_candidate_has_a_row_with_the_rung_that_it_reached(done: Experiment) -> None:
    rows = list(csv.DictReader((done.folder / "trials.csv").read_text().splitlines()))
    assert len({row["key"] for row in rows}) == len(rows) == done.config.budget.trials == 5
    assert [int(row["step_reached"]) for row in rows] == [max(trial.proxy) for trial in done.results.trials]
    assert {row["label"] for row in rows} == {"plain", "wide", ""}
    assert Counter(row["status"] for row in rows)["complete"] >= 3


def test_the_log_has_a_line_for_every_outcome(done: Experiment) -> None:
    lines = (done.folder / "log.txt").read_text().splitlines()
    assert len(lines) == sum(len(trial.proxy) + len(trial.full) for trial in done.results.trials)


def test_checkpoints_go_when_nothing_can_go_on_from_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasseg.experiment.experiment.MOST_WAITING", 1)
    search = begin(tmp_path / "run", tiny_config(candidates=9))
    seen: list[set[str]] = []

    def look(search: Experiment) -> None:
        there = {path.name for path in (search.folder / "checkpoints").glob("*-proxy*.pt")}
        assert there <= {f"{key}-proxy{step}.pt" for key, step in search.planner.resumable(1)}
        seen.append(there)

    search.run(threading.Event(), look)
    assert max(map(len, seen)) == 1
    runs = sum(len(trial.full) for trial in search.results.trials)
    assert [path.suffix for path in (search.folder / "checkpoints").iterdir()] == [".safetensors"] * runs
    assert sum(len(trial.proxy) == 1 for trial in search.results.trials) >= 4


def test_nothing_is_trained_twice(tmp_path: Path, trainings: Counter[Training]) -> None:
    search = finish(begin(tmp_path / "run"))
    assert set(trainings.values()) == {1}
    fulls = {(key, seed) for task, key, _, seed in trainings if task != "proxy"}
    assert fulls == {(t.key, seed) for t in search.results.trials for seed in t.full}
    assert next(task for task, *_ in trainings) == "prepare"


@pytest.mark.parametrize("stop_after", [1, 4, 9])
def test_a_stopped_search_goes_on_and_ends_as_if_unbroken(
    done: Experiment, tmp_path: Path, trainings: Counter[Training], stop_after: int
) -> None:
    stop = threading.Event()
    search = begin(tmp_path / "run")
    search.run(stop, lambda search: stop.set() if len(trainings) == stop_after else None)
    assert len(trainings) == stop_after
    assert outcomes(finish(resumed(tmp_path / "run"))) == outcomes(done)
    assert set(trainings.values()) == {1}


@pytest.mark.parametrize("calls", [3, 6, 9, 23, 40])
def test_a_stop_in_the_middle_of_a_job_ends_it_and_the_search_ends_as_if_unbroken(
    done: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    search, stop, asked = begin(tmp_path / "run"), threading.Event(), 0
    raise_if_stopped = Context.raise_if_stopped

    def stopping(context: Context) -> None:
        nonlocal asked
        asked += 1
        if asked == calls:
            stop.set()
        assert asked <= calls, "the job went on"
        raise_if_stopped(context)

    with monkeypatch.context() as patched:
        patched.setattr(Context, "raise_if_stopped", stopping)
        search.run(stop, lambda search: None)
    assert asked == calls
    assert not list((tmp_path / "run").glob("**/*.partial"))
    again = resumed(tmp_path / "run")
    assert outcomes(finish(again)) == outcomes(done)


def test_a_search_in_another_process_that_is_killed_goes_on_and_ends_as_if_unbroken(
    done: Experiment, tmp_path: Path, trainings: Counter[Training]
) -> None:
    script = "import sys; from pathlib import Path; from tests.experiment.test_experiment import begin, finish; "
    process = subprocess.Popen(
        [sys.executable, "-c", script + "finish(begin(Path(sys.argv[1])))", tmp_path / "run"], cwd=REPOSITORY
    )
    _wait_for(lambda: len(list(tmp_path.glob("run/checkpoints/*-proxy2.pt"))) >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    search = resumed(tmp_path / "run")
    before = {(trial.key, step) for trial in search.results.trials for step in trial.proxy}
    assert before
    assert outcomes(finish(search)) == outcomes(done)
    assert not before & {(key, step) for task, key, step, _ in trainings if task == "proxy"}


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not condition():
        assert process.poll() is None
        time.sleep(0.01)


def test_the_time_of_what_a_kill_interrupts_is_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasseg.experiment.stopwatch.EVERY_SECONDS", 0.05)
    search = begin(tmp_path / "run")
    noted: list[float] = []

    class Killed(BaseException):
        pass

    def train(worker: Worker, job: Job) -> JobResult:
        start = search.elapsed_seconds
        while (elapsed := Stopwatch(tmp_path / "run").seconds) < start + 0.5:
            time.sleep(0.02)
        noted.append(elapsed)
        raise Killed

    monkeypatch.setattr(Worker, "run", train)
    with pytest.raises(Killed):
        finish(search)
    assert not any(trial.full or trial.proxy for trial in search.planner.trials)
    assert resumed(tmp_path / "run").elapsed_seconds >= noted[0] > 0.5


def test_a_finished_search_has_nothing_left_to_do(tmp_path: Path, trainings: Counter[Training]) -> None:
    latencies = finish(begin(tmp_path / "run")).latencies
    trainings.clear()
    assert finish(resumed(tmp_path / "run")).latencies == latencies
    assert not trainings


def test_a_finished_search_goes_on_with_a_larger_budget(
    done: Experiment, tmp_path: Path, trainings: Counter[Training]
) -> None:
    shutil.copytree(done.folder, tmp_path / "run")
    tried = len(done.results.trials)
    search = finish(Experiment.open(tmp_path / "run", space=SPACE, asked=SearchOptions(budget=f"{tried + 3}trials")))
    assert len(search.results.trials) == tried + 3
    assert [t.key for t in search.results.trials][:tried] == [t.key for t in done.results.trials]
    known = {(t.key, step) for t in done.results.trials for step in t.proxy}
    assert not known & {(key, step) for task, key, step, _ in trainings if task == "proxy"}
    assert set(trainings.values()) == {1}


def test_a_budget_that_is_spent_or_of_another_kind_is_refused(done: Experiment, tmp_path: Path) -> None:
    tried = len(done.results.trials)
    for budget, message in (
        (f"{tried - 1}trials", f"budget {tried - 1}trials includes what was spent, {tried} trials; give more to go on"),
        ("2h", f"budget 2h cannot replace {done.config.budget}; give one of trials"),
    ):
        with pytest.raises(ValueError, match=message):
            Experiment.open(done.folder, space=SPACE, asked=SearchOptions(budget=budget))


def test_looking_at_a_search_changes_nothing_of_it(done: Experiment) -> None:
    before = content(done.folder)
    again = resumed(done.folder)
    assert outcomes(again) == outcomes(done)
    assert again.latencies == done.latencies
    assert done.results.best is not None
    assert again.results.best is not None
    assert again.results.best.key == done.results.best.key
    assert [score for _, score in again.history] == [score for _, score in done.history]
    assert [time for time, _ in again.history] == pytest.approx([time for time, _ in done.history], abs=1e-3)
    assert content(done.folder) == before


def test_what_happened_when_is_remembered(done: Experiment) -> None:
    seconds = [time for time, _ in done.history]
    assert seconds == sorted(seconds)
    assert done.history[-1][1] == done.results.best_score
    assert resumed(done.folder).elapsed_seconds >= seconds[-1]
    taken = resumed(done.folder).planner.clock.taken
    assert taken == done.planner.clock.taken
    assert set(taken) == {"prepare", "full", *RUNGS}
    assert done.spent == 0


def test_several_candidates_a_job_score_as_they_do_alone(done: Experiment, tmp_path: Path) -> None:
    search = finish(begin(tmp_path / "run", tiny_config(candidates_per_job=2)))
    known = {t.key: t for t in done.results.trials}
    same = [(t.proxy[RUNGS[0]], known[t.key].proxy[RUNGS[0]]) for t in search.results.trials if t.key in known]
    assert len(same) >= 2
    assert all(a == b for a, b in same)


@pytest.mark.slow
def test_ray_and_in_process_give_the_same_trials_and_scores(done: Experiment, tmp_path: Path) -> None:
    assert outcomes(finish(begin(tmp_path / "run", tiny_config(runner="ray")))) == outcomes(done)


# --- within limits, on a front, by a latency table -------------------------------------------------------------------

LIMIT = 3000
"""Parameters; the reference `wide` has more."""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A whole search for a front of mIoU and latency among small networks."""
    folder = tmp_path_factory.mktemp("limited")
    latency_table((64, 96), classes=13).save(folder / "table.json")
    wanted = {"objective": "pareto", "latency": str(folder / "table.json"), "max_params": f"{LIMIT}"}
    search = finish(begin(folder / "run", tiny_config("7trials", candidates=7).model_copy(update=wanted)))
    (folder / "table.json").unlink()
    return search


def test_networks_beyond_a_limit_are_not_trained_and_a_reference_beyond_it_cannot_win(limited: Experiment) -> None:
    params = {trial.candidate.label: trial.costs.params or 0 for trial in limited.results.trials}
    assert params.pop("wide") > LIMIT
    assert max(params.values()) <= LIMIT
    assert limited.planner.rejected
    wide = limited.results.references["wide"]
    assert (set(wide.proxy), set(wide.full)) == (set(RUNGS), {0, 1})
    assert wide not in limited.results.ranked
    assert wide not in limited.results.front
    study = optuna.load_study(study_name="nasseg", storage=journal(limited.folder))
    states = Counter(trial.state.name for trial in study.trials)
    assert states["PRUNED"] >= len(limited.planner.rejected)
    assert limited.results.best is not None
    assert load(limited.folder / "best.json").key == limited.results.best.key


def test_the_cost_is_what_the_table_predicts_wherever_the_table_is_now(limited: Experiment) -> None:
    table = limited.problem.pricing.table
    assert table is not None
    for trial in limited.results.trials:
        assert trial.costs.latency_ms == table.latency_ms(limited.architecture(trial))
    reference = limited.results.references["plain"]
    assert limited.objective.reference_cost == reference.costs.latency_ms
    points = [(trial.costs.latency_ms, (trial.miou or 0)) for trial in limited.results.front]
    assert points == sorted(points)
    assert resumed(limited.folder).problem.pricing.table == table


def test_a_stopped_search_for_a_front_ends_as_if_unbroken(limited: Experiment, tmp_path: Path) -> None:
    shutil.copyfile(limited.folder / "latency.json", tmp_path / "table.json")
    config = limited.config.model_copy(update={"latency": str(tmp_path / "table.json")})
    stop, jobs = threading.Event(), 0
    search = begin(tmp_path / "run", config)

    def count(search: Experiment) -> None:
        nonlocal jobs
        jobs += not search.planner.in_flight
        if jobs == 6:
            stop.set()

    search.run(stop, count)
    again = finish(resumed(tmp_path / "run"))
    assert outcomes(again) == outcomes(limited)
    assert [t.candidate for t in again.planner.rejected] == [t.candidate for t in limited.planner.rejected]


# --- by gradient -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[True, False], ids=["shared", "whole"])
def relaxed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A whole search by gradient, of a space with a shared stage or without."""
    config = gradient_config(f"{SPACE}:shared={str(request.param).lower()}")
    return finish(begin(tmp_path_factory.mktemp("runs") / "whole", config))


def test_a_search_by_gradient_tries_what_the_relaxations_found(relaxed: Experiment) -> None:
    results = relaxed.record.relaxations()
    assert [result.job.seed for result in results] == [0, 1]
    found = [result.found[0] for result in results]
    references = {trial.key for trial in relaxed.results.references.values()}
    first = [t for t in relaxed.results.trials if t.key in references or t.candidate.choice in found]
    assert all(any(trial.candidate.choice == choice for trial in first) for choice in found)
    assert all(tuple(trial.proxy) == RUNGS for trial in first)
    assert relaxed.results.trials[: len(first)] == first
    assert relaxed.results.best is not None
    assert set(relaxed.results.best.deciding) == {0, 1}
    assert load(relaxed.folder / "best.json").choice == relaxed.results.best.candidate.choice
    assert {path.name for path in (relaxed.folder / "relaxation").iterdir()} == {"seed0.json", "seed1.json"}


@pytest.mark.parametrize("stop_after", [2, 3])
def test_a_stopped_search_by_gradient_ends_as_if_unbroken(relaxed: Experiment, tmp_path: Path, stop_after: int) -> None:
    stop, jobs = threading.Event(), 0
    search = begin(tmp_path / "run", relaxed.config)

    def count(search: Experiment) -> None:
        nonlocal jobs
        jobs += not search.planner.in_flight  # a result came in
        if jobs == stop_after:
            stop.set()

    search.run(stop, count)
    again = finish(resumed(tmp_path / "run"))
    assert outcomes(again) == outcomes(relaxed)
    ends = [(part.job.seed, part.job.stop_step, part.found) for part in again.record.relaxations()]
    assert ends == [(part.job.seed, part.job.stop_step, part.found) for part in relaxed.record.relaxations()]


def test_a_search_stops_before_the_disk_is_full_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = finish(begin(tmp_path / "whole"))
    free = iter([1 << 40] * 4)
    monkeypatch.setattr("nasseg.run_folder.free_disk_bytes", lambda folder: next(free, 1000))
    with pytest.raises(OSError, match="No space left on device for 256 MiB"):
        finish(begin(tmp_path / "run"))
    monkeypatch.setattr("nasseg.run_folder.free_disk_bytes", lambda folder: 1 << 40)
    assert 0 < len(resumed(tmp_path / "run").results.trials) < len(whole.results.trials)
    assert outcomes(finish(resumed(tmp_path / "run"))) == outcomes(whole)
