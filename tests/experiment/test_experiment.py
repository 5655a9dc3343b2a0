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

import pytest

import nasseg
from nasseg.experiment.experiment import Search, costs_of, miou, plan_search
from nasseg.graph import load
from nasseg.jobs.worker import SearchWorker
from nasseg.pareto import non_dominated
from nasseg.planning.config import SearchConfig
from nasseg.planning.job import Outcome, Task, Trial
from nasseg.report.search import SearchReporter
from nasseg.train.model import load_model
from nasseg.train.provenance import Provenance
from tests.conftest import REPOSITORY
from tests.jobs.tiny import DATA, RUNGS, SPACE, gradient_config, latency_table, tiny_config

Training = tuple[Task, str, int, int]


def begin(folder: Path, config: SearchConfig | None = None) -> Search:
    folder.mkdir()
    return Search(config or tiny_config(), folder)


def finish(search: Search) -> Search:
    search.run(threading.Event(), lambda search: None)
    return search


def resumed(folder: Path) -> Search:
    return Search(SearchConfig.load(folder, space=SPACE), folder)


def results(search: Search) -> list[tuple[Any, ...]]:
    return [(t.candidate, dict(t.proxy), dict(t.full)) for t in search.trials]


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A whole search with its reports."""
    search = begin(tmp_path_factory.mktemp("runs") / "whole")
    with SearchReporter(search) as reporter:
        search.run(threading.Event(), reporter.update)
    return search


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Counter[Training]:
    """Counts what workers train."""
    counted: Counter[Training] = Counter()
    run = SearchWorker.run

    def counting(self: SearchWorker, job: Any) -> Any:
        counted.update((job.task, c.key, job.stop_step, job.seed) for c in job.candidates)
        return run(self, job)

    monkeypatch.setattr(SearchWorker, "run", counting)
    return counted


def test_the_run_folder_holds_all_that_is_promised(done: Search) -> None:
    names = {path.name for path in done.folder.iterdir()}
    assert names == {
        "config.yaml", "study.journal", "best.json", "pareto", "trials.csv", "tensorboard", "report.html", "log.txt",
        "model.safetensors", "checkpoints", "features",
    }  # fmt: skip
    assert SearchConfig.load(done.folder, space=SPACE) == done.config


def test_the_best_is_written_with_where_it_comes_from(done: Search) -> None:
    assert done.best is not None
    best = load(done.folder / "best.json")
    assert (best.key, best.space, best.choice) == (done.best.candidate.key, SPACE, done.best.candidate.choice)
    provenance = Provenance.read(best)
    assert provenance is not None
    assert (provenance.data.spec, provenance.budget, provenance.seed) == (done.dataset.spec, "5trials", 0)
    assert provenance.miou["end to end, seed 1"] == done.best.full[1].miou
    assert provenance.latency == done.latencies[best.key]
    network, _ = load_model(done.folder)
    assert network.architecture.key == best.inference().key


def test_the_best_is_as_good_as_the_reference_in_the_same_measure(done: Search) -> None:
    reference = done.trial(done.reference_keys["plain"])
    assert done.best is not None
    assert set(done.best.full) == set(reference.full) == {0, 1}
    assert done.best_score == (done.merit(done.best) or ())[-1] >= (done.merit(reference) or ())[-1]


def test_the_front_is_what_no_other_beats(done: Search) -> None:
    assert done.best in done.front
    final = [trial for trial in done.trials if len(trial.full) == 2]
    assert len(final) == 3
    points = [(float(costs_of(trial).madds or 0), miou(trial)) for trial in final]
    expected = [final[index] for index in non_dominated(points)]
    assert done.front == expected
    files = {path.stem for path in (done.folder / "pareto").iterdir()}
    assert files == {trial.candidate.label or trial.candidate.key for trial in expected}


def test_every_candidate_has_a_row_with_the_rung_that_it_reached(done: Search) -> None:
    rows = list(csv.DictReader((done.folder / "trials.csv").read_text().splitlines()))
    assert len({row["key"] for row in rows}) == len(rows) == done.config.budget.trials == 5
    assert [int(row["step_reached"]) for row in rows] == [max(trial.proxy) for trial in done.trials]
    assert {row["label"] for row in rows} == {"plain", "wide", ""}
    assert Counter(row["status"] for row in rows)["complete"] >= 3


def test_the_log_has_a_line_for_every_outcome(done: Search) -> None:
    lines = (done.folder / "log.txt").read_text().splitlines()
    assert len(lines) == sum(len(trial.proxy) + len(trial.full) for trial in done.trials)


def test_nothing_is_trained_twice(tmp_path: Path, trainings: Counter[Training]) -> None:
    search = finish(begin(tmp_path / "run"))
    assert set(trainings.values()) == {1}
    fulls = {(key, seed) for task, key, _, seed in trainings if task != "proxy"}
    assert fulls == {(t.candidate.key, seed) for t in search.trials for seed in t.full}
    assert next(task for task, *_ in trainings) == "prepare"


@pytest.mark.parametrize("stop_after", [1, 4, 9])
def test_a_stopped_search_goes_on_and_ends_as_if_unbroken(
    done: Search, tmp_path: Path, trainings: Counter[Training], stop_after: int
) -> None:
    stop = threading.Event()
    search = begin(tmp_path / "run")
    search.run(stop, lambda search: stop.set() if len(trainings) == stop_after else None)
    assert len(trainings) == stop_after
    assert results(finish(resumed(tmp_path / "run"))) == results(done)
    assert set(trainings.values()) == {1}


def test_a_search_in_another_process_that_is_killed_goes_on_and_ends_as_if_unbroken(
    done: Search, tmp_path: Path, trainings: Counter[Training]
) -> None:
    script = "import sys; from pathlib import Path; from tests.experiment.test_experiment import begin, finish; "
    process = subprocess.Popen(
        [sys.executable, "-c", script + "finish(begin(Path(sys.argv[1])))", tmp_path / "run"], cwd=REPOSITORY
    )
    _wait_for(lambda: len(list(tmp_path.glob("run/checkpoints/*-proxy2.pt"))) >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    search = resumed(tmp_path / "run")
    before = {(trial.candidate.key, step) for trial in search.trials for step in trial.proxy}
    assert before
    assert results(finish(search)) == results(done)
    assert not before & {(key, step) for task, key, step, _ in trainings if task == "proxy"}


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not condition():
        assert process.poll() is None
        time.sleep(0.01)


def test_a_finished_search_has_nothing_left_to_do(tmp_path: Path, trainings: Counter[Training]) -> None:
    latencies = finish(begin(tmp_path / "run")).latencies
    trainings.clear()
    assert finish(resumed(tmp_path / "run")).latencies == latencies
    assert not trainings


def test_looking_at_a_search_changes_nothing_of_it(done: Search) -> None:
    before = content(done.folder)
    again = resumed(done.folder)
    assert results(again) == results(done)
    assert (again.latencies, again.best) == (done.latencies, done.best)
    assert [score for _, score in again.history] == [score for _, score in done.history]
    assert [time for time, _ in again.history] == pytest.approx([time for time, _ in done.history], abs=1e-3)
    assert content(done.folder) == before


def test_what_happened_when_is_remembered(done: Search) -> None:
    seconds = [time for time, _ in done.history]
    assert seconds == sorted(seconds)
    assert done.history[-1][1] == done.best_score
    assert resumed(done.folder).elapsed_seconds >= seconds[-1]
    assert done.spent == 0


def test_several_candidates_a_job_score_as_they_do_alone(done: Search, tmp_path: Path) -> None:
    search = finish(begin(tmp_path / "run", tiny_config(candidates_per_job=2)))
    known = {t.candidate.key: t for t in done.trials}
    same = [
        (t.proxy[RUNGS[0]], known[t.candidate.key].proxy[RUNGS[0]]) for t in search.trials if t.candidate.key in known
    ]
    assert len(same) >= 2
    assert all(a == b for a, b in same)


@pytest.mark.slow
def test_ray_and_in_process_give_the_same_trials_and_scores(done: Search, tmp_path: Path) -> None:
    assert results(finish(begin(tmp_path / "run", tiny_config(runner="ray")))) == results(done)


# --- within limits, on a front, by a latency table -------------------------------------------------------------------

LIMIT = 3000
"""Parameters; the reference `wide` has more."""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A whole search for a front of mIoU and latency among small networks."""
    folder = tmp_path_factory.mktemp("limited")
    latency_table((64, 96), classes=13).save(folder / "table.json")
    wanted = {"objective": "pareto", "latency": str(folder / "table.json"), "max_params": f"{LIMIT}"}
    search = finish(begin(folder / "run", tiny_config("7trials", candidates=7).model_copy(update=wanted)))
    (folder / "table.json").unlink()
    return search


def test_networks_beyond_a_limit_are_not_trained_and_a_reference_beyond_it_cannot_win(limited: Search) -> None:
    params = {trial.candidate.label: costs_of(trial).params or 0 for trial in limited.trials}
    assert params.pop("wide") > LIMIT
    assert max(params.values()) <= LIMIT
    assert limited.planner.rejected
    wide = limited.trial(limited.reference_keys["wide"])
    assert (set(wide.proxy), set(wide.full)) == (set(RUNGS), {0, 1})
    assert wide not in limited.ranked
    assert wide not in limited.front
    states = Counter(trial.state.name for trial in limited.record.study.trials)
    assert states["PRUNED"] >= len(limited.planner.rejected)
    assert limited.best is not None
    assert load(limited.folder / "best.json").key == limited.best.candidate.key


def test_the_cost_is_what_the_table_predicts_wherever_the_table_is_now(limited: Search) -> None:
    table = limited.pricing.table
    assert table is not None
    for trial in limited.trials:
        assert costs_of(trial).latency_ms == table.latency_ms(limited.architecture(trial))
    reference = limited.trial(limited.reference_keys["plain"])
    assert limited.objective.reference_cost == costs_of(reference).latency_ms
    points = [(costs_of(trial).latency_ms, miou(trial)) for trial in limited.front]
    assert points == sorted(points)
    assert resumed(limited.folder).pricing.table == table


def test_a_stopped_search_for_a_front_ends_as_if_unbroken(limited: Search, tmp_path: Path) -> None:
    shutil.copyfile(limited.folder / "latency.json", tmp_path / "table.json")
    config = limited.config.model_copy(update={"latency": str(tmp_path / "table.json")})
    stop, jobs = threading.Event(), 0
    search = begin(tmp_path / "run", config)

    def count(search: Search) -> None:
        nonlocal jobs
        jobs += not search.planner.in_flight
        if jobs == 6:
            stop.set()

    search.run(stop, count)
    again = finish(resumed(tmp_path / "run"))
    assert results(again) == results(limited)
    assert again.planner.rejected == limited.planner.rejected


def test_on_the_tables_device_the_front_is_that_of_what_was_measured(
    limited: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = limited._trained_furthest
    assert len(tried) >= 2
    fastest = max(tried, key=miou)
    measured = {t.candidate.key: 1.0 if t is fastest else 2.0 for t in tried}
    latency = next(iter(limited.latencies.values()))
    made_up = {key: latency.model_copy(update={"median_ms": ms}) for key, ms in measured.items()}
    monkeypatch.setattr(limited, "latencies", made_up)
    monkeypatch.setattr("nasseg.experiment.experiment.device_name", lambda device: "a phone")
    assert limited.front == [fastest]


# --- by gradient -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[True, False], ids=["shared", "whole"])
def relaxed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A whole search by gradient, of a space with a shared stage or without."""
    config = gradient_config(f"{SPACE}:shared={str(request.param).lower()}")
    return finish(begin(tmp_path_factory.mktemp("runs") / "whole", config))


def test_a_search_by_gradient_tries_what_the_relaxations_found(relaxed: Search) -> None:
    results = relaxed.record.relaxations()
    assert [result.job.seed for result in results] == [0, 1]
    found = [result.found[0] for result in results]
    references = set(relaxed.reference_keys.values())
    first = [t for t in relaxed.trials if t.candidate.key in references or t.candidate.choice in found]
    assert len(first) > len(references)
    assert all(tuple(trial.proxy) == RUNGS for trial in first)
    assert relaxed.trials[: len(first)] == tuple(first)
    assert relaxed.best is not None
    assert set(relaxed.best.full) == {0, 1}
    assert load(relaxed.folder / "best.json").choice == relaxed.best.candidate.choice
    assert {path.name for path in (relaxed.folder / "relaxation").iterdir()} == {"seed0.json", "seed1.json"}


@pytest.mark.parametrize("stop_after", [2, 3])
def test_a_stopped_search_by_gradient_ends_as_if_unbroken(relaxed: Search, tmp_path: Path, stop_after: int) -> None:
    stop, jobs = threading.Event(), 0
    search = begin(tmp_path / "run", relaxed.config)

    def count(search: Search) -> None:
        nonlocal jobs
        jobs += not search.planner.in_flight  # a result came in
        if jobs == stop_after:
            stop.set()

    search.run(stop, count)
    again = finish(resumed(tmp_path / "run"))
    assert results(again) == results(relaxed)
    ends = [(part.job.seed, part.job.stop_step, part.found) for part in again.record.relaxations()]
    assert ends == [(part.job.seed, part.job.stop_step, part.found) for part in relaxed.record.relaxations()]


def test_a_plan_by_gradient_has_the_dials_that_are_given() -> None:
    asked = tiny_config("2min").model_copy(update={"plan": None, "strategy": "gradient"})
    plan = plan_search(asked, {"relax_steps": 7, "partial_channels": 2}, concurrency=1).plan
    assert plan is not None
    assert plan.relax_recipe is not None
    assert (plan.relaxations, plan.relax_steps, plan.relax_recipe.steps) == (1, 7, 7)
    assert (plan.relax_recipe.cost_weight, plan.relax_recipe.options.partial_channels) == (-0.07, 2)


# --- ranking ---------------------------------------------------------------------------------------------------------


def ok(score: float, step: int = 4, madds: int | None = None) -> Outcome:
    return Outcome(key="", status="ok", step=step, miou=score, madds=madds, params=1)


LOST = Outcome(key="", status="failed", step=0, message="its process died")


@pytest.fixture
def ranking(done: Search, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Search]:
    """The search with made-up trials, given as (proxy by step, end to end by seed), each with the reference's cost."""
    cost = int(done.objective.reference_cost)

    def made(*trials: tuple[dict[int, Any], dict[int, Any]]) -> Search:
        def outcomes(values: dict[int, Any]) -> dict[int, Outcome]:
            return {at: v if isinstance(v, Outcome) else ok(v, madds=cost) for at, v in values.items()}

        candidate = done.trials[0].candidate
        made_up = [
            Trial(candidate.model_copy(update={"key": str(i)}), outcomes(proxy), outcomes(full))
            for i, (proxy, full) in enumerate(trials)
        ]
        monkeypatch.setattr(Search, "trials", made_up)
        return done

    return made


def test_those_trained_end_to_end_rank_by_their_means_then_the_others_by_rung(ranking: Callable[..., Search]) -> None:
    search = ranking(
        ({2: 0.9}, {}),
        ({2: 0.1, 6: 0.2}, {}),
        ({}, {0: 0.8}),
        ({6: 0.9}, {0: 0.3, 1: 0.5}),
        ({6: 0.1}, {0: 0.5, 1: 0.4}),
        ({}, {}),
        ({2: LOST}, {}),
        ({6: 0.3}, {0: LOST}),
    )
    assert [trial.candidate.key for trial in search.ranked] == ["2", "4", "3", "7", "1", "0"]
    assert search.best_score == pytest.approx(0.8)
    assert [trial.candidate.key for trial in search.front] == ["2"]


def test_a_search_without_scores_has_no_best(ranking: Callable[..., Search]) -> None:
    search = ranking(({}, {}), ({2: LOST}, {}))
    assert (search.best, search.ranked, search.front) == (None, [], [])
    with pytest.raises(ValueError, match="no candidate has a score yet"):
        _ = search.best_score


def test_costs_and_accuracies_survive_a_failed_training(done: Search) -> None:
    trial = Trial(done.trials[0].candidate, {2: ok(0.2, madds=7), 6: ok(0.3, madds=7)}, {0: LOST})
    assert (costs_of(trial).madds, miou(trial)) == (7, 0.3)


# --- before it starts ------------------------------------------------------------------------------------------------


def test_a_plan_is_made_from_the_measured_speed() -> None:
    asked = tiny_config("2min").model_copy(update={"plan": None})
    plan = plan_search(asked, {"finalists": 1}, concurrency=1).plan
    assert plan is not None
    assert (plan.finalists, plan.concurrency, plan.candidates) == (1, 1, None)


def test_a_folder_in_use_is_refused_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="exists already"):
        nasseg.search(tmp_path, space="nowhere")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": "200potatoes"}, "200potatoes"),
        ({"budget": "1gpu-h", "device": "cpu"}, "needs a GPU"),
        ({"space": "nowhere"}, "unknown search space 'nowhere'"),
        ({"sampler": "oracle"}, "unknown sampler 'oracle'"),
        ({"data": "folder:/nowhere"}, "/nowhere"),
        ({"val_split": "vla"}, "vla"),
        ({"weights": "/nowhere.safetensors"}, "/nowhere.safetensors"),
        ({"rung": (1, 2)}, "unknown option 'rung'; known: space, "),
        ({"plan": None}, "unknown option 'plan'"),
        ({"rungs": (6, 2)}, "rungs"),
        ({"full_steps": 0}, "full_steps is 0"),
        ({"cost_weight": 1}, "cost_weight is 1"),
        ({"gpus_per_trial": 0.5, "device": "cpu"}, "gpus_per_trial is 0.5"),
        (
            {"strategy": "gradient", "space": "dpc"},
            "'dpc' cannot be searched by gradient; those that can: auto_deeplab",
        ),
        ({"relax_steps": 5}, "relax_steps is for strategy gradient"),
        ({"strategy": "magic"}, "strategy is 'magic'"),
        ({"objective": "beauty"}, "objective is 'beauty'"),
        ({"max_params": "few"}, "max_params is 'few', but must be a number above 0"),
        ({"max_params": "1"}, "max_params is 0.000 M parameters, but the smallest network found in the space has"),
        ({"target_latency": "20ms"}, "target_latency needs a latency table"),
        ({"latency": "/nowhere.json"}, "/nowhere.json: no such file; give a table of nasseg profile"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    asked = {"budget": "2trials", "space": SPACE, "data": DATA, "device": "cpu", **options}
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        nasseg.search(tmp_path / "run", **asked)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
