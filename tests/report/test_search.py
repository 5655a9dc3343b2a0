import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nasseg.experiment.experiment import Experiment
from nasseg.graph import load
from nasseg.jobs.context import Context
from nasseg.planning.config import SearchConfig
from nasseg.report.progress import at_this_time, progress
from nasseg.report.search import SearchReporter, example_predictions
from nasseg.report.texts import plan_text, resume_command
from nasseg.train.provenance import Provenance
from tests.jobs.tiny import DATA, SPACE, gradient_config, tiny_config
from tests.report.made_up import snapshot


def experiment(config: SearchConfig, folder: Path) -> Experiment:
    config.save(folder)
    return Experiment(config, Context.open(config, folder))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(search: Experiment, stop_after: int | None = None) -> SearchReporter:
    stop = threading.Event()
    with SearchReporter(search) as reporter:

        def update(search: Experiment) -> None:
            reporter.update(search)
            if sum(len(t.proxy) + len(t.full) for t in search.results.trials) == stop_after:
                stop.set()

        search.run(stop, update)
    return reporter


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> SearchReporter:
    return run(experiment(tiny_config(), tmp_path_factory.mktemp("run")))


def search_of(reporter: SearchReporter) -> Experiment:
    return reporter.search


def test_the_board_ends_with_the_final_front_the_best_cell_and_predictions(done: SearchReporter) -> None:
    search = search_of(done)
    board = EventAccumulator(str(search.folder / "tensorboard" / "search" / "best"))
    board.Reload()
    assert {"best/mIoU against cost", "best/cell", "predictions"} <= set(board.Tags()["images"])
    scores = [event.value for event in board.Scalars("best/score against budget spent")]
    assert scores[-1] == pytest.approx(search.results.best_score)
    folders = {path.name for path in (search.folder / "tensorboard" / "trials").iterdir()}
    assert folders == {row.name for row in done.rows}


def test_the_page_and_the_table_name_the_best(done: SearchReporter) -> None:
    search = search_of(done)
    assert search.results.best is not None
    page = (search.folder / "report.html").read_text()
    assert f"{SPACE} on {search.problem.dataset.spec}" in page
    assert done.compared()[0].key == search.results.best.key
    assert {row.label for row in done.compared()} >= {"plain", "wide"}


def test_the_summary_says_what_the_table_says(done: SearchReporter, capsys: pytest.CaptureFixture[str]) -> None:
    search, summary = search_of(done), json.loads(json.dumps(done.summary()))
    assert (summary["candidates"], summary["folder"]) == (5, str(search.folder))
    best, *_ = summary["networks"]
    row = done.compared()[0]
    assert summary["best"] == best["key"] == row.key
    assert (best["full_miou"], best["madds"], best["latency_ms"]) == (row.full_miou, row.madds, row.latency_ms)
    assert best["latency_ms"] > 0
    assert len(best["fresh_miou_by_seed"]) == 1
    assert summary["gain"]["seeds"] == [1, 1]
    done.print_summary()
    text = capsys.readouterr().err
    assert "on fresh seeds (1 and 1)" in text
    assert "5 candidates tried" in text
    assert f"nasseg retrain {search.folder / 'best.json'}" in text


def test_the_summary_says_how_to_go_on_and_why_the_best_is_not_the_most_accurate(
    done: SearchReporter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    search, row = search_of(done), done.compared()[0]
    best, other = replace(row, label="plain", full={0: 0.5}), replace(row, key="other" * 4, full={0: 0.6})
    monkeypatch.setattr(type(search.results), "gain", None)
    for compared, text in (
        ([best, other], "The handcrafted plain remains the best by its score, which weighs mIoU against cost"),
        ([best], "The handcrafted plain remains the best.\n"),
        ([best, replace(other, feasible=False)], "The handcrafted plain remains the best.\n"),
    ):
        monkeypatch.setattr(done, "compared", lambda shown=compared: shown)
        done.print_summary()
        said = capsys.readouterr().err
        assert text in said.replace(" \n", " ")
        assert f"go on:\n  nasseg search --resume --out {search.folder} --space {SPACE} --budget 10trials\n" in said


@pytest.mark.parametrize("here", [True, False])
def test_rows_tell_whether_latency_was_measured_on_the_device_that_counts(done: SearchReporter, here: bool) -> None:
    again = SearchReporter(Experiment.open(search_of(done).folder, space=SPACE))
    again.search.results.by_measurement = here
    assert {row.by_measurement for row in again.rows} == {here}


def test_the_command_that_goes_on_repeats_what_a_file_alone_does_not_decide(
    done: SearchReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = search_of(done)
    elsewhere = {"space": "dpc", "storage": "postgresql://me:secret@host/db", "ray_address": "head:6379"}
    monkeypatch.setattr(search, "config", search.config.model_copy(update=elsewhere))
    monkeypatch.setattr(search, "folder", Path("my runs/one"))
    expected = "nasseg search --resume --out 'my runs/one' --storage postgresql://me@host/db --ray-address head:6379"
    assert resume_command(search) == expected
    assert resume_command(search, search.config.budget.times(2)) == f"{expected} --budget 10trials"


def test_a_report_of_a_finished_search_rewrites_the_same_and_nothing_else(done: SearchReporter) -> None:
    folder = search_of(done).folder
    before = content(folder)
    for name in ("trials.csv", "report.html"):
        (folder / name).unlink()
    again = SearchReporter(Experiment.open(folder, space=SPACE))
    again.write()
    after = content(folder)
    assert set(after) == set(before)
    assert [name for name in after if after[name] != before[name]] in ([], ["report.html"])
    assert again.compared() == done.compared()


def test_relaxations_are_shown_while_the_search_goes_on_and_on_the_page(
    tmp_path: Path, done: SearchReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nasseg.report.search.TICK_INTERVAL_S", 0.01)
    (tmp_path / "relaxation").mkdir()
    (tmp_path / "relaxation" / "seed0.json").write_text(snapshot().model_dump_json())
    picture = tmp_path / "relaxation" / "cell-seed0.png"
    with SearchReporter(experiment(tiny_config(), tmp_path)):
        deadline = time.monotonic() + 60
        while not picture.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert picture.exists()

    folder = search_of(done).folder
    shutil.copytree(tmp_path / "relaxation", folder / "relaxation")
    done.write()
    assert "seed 0, step 100 of 400" in (folder / "report.html").read_text()
    shutil.rmtree(folder / "relaxation")
    done.write()
    assert "seed 0, step 100 of 400" not in (folder / "report.html").read_text()


def test_page_table_and_board_are_made_while_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nasseg.report.search.TICK_INTERVAL_S", 0.01)
    monkeypatch.setattr("nasseg.report.search.VIEWS_INTERVAL_S", 0.0)
    monkeypatch.setattr("nasseg.report.search.MOST_VIEWS_SHARE", 1.0)
    search, board = experiment(tiny_config(), tmp_path), tmp_path / "tensorboard" / "trials"
    seen: list[int] = []

    def views() -> int:
        table = tmp_path / "trials.csv"
        return len(table.read_text().splitlines()) - 1 if (tmp_path / "report.html").exists() else 0

    with SearchReporter(search) as reporter:

        def update(search: Experiment) -> None:
            reporter.update(search)
            deadline = time.monotonic() + 60
            while views() < len(search.results.trials) and time.monotonic() < deadline:
                time.sleep(0.01)
            seen.append(views())
            assert views() == len(search.results.trials)

        search.run(threading.Event(), update)
    assert sorted(seen) == seen
    assert len(list(board.iterdir())) == len(reporter.rows)


def test_a_resumed_search_logs_each_outcome_once(tmp_path: Path) -> None:
    run(experiment(tiny_config("3trials", candidates=3), tmp_path), stop_after=3)
    search = Experiment.open(tmp_path, space=SPACE)
    run(search)
    lines = [line.split(" ", 2)[2] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert len(lines) == len(set(lines)) == sum(len(t.proxy) + len(t.full) for t in search.results.trials)


def test_a_search_that_was_stopped_before_any_result_reports_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = threading.Event()
    stop.set()
    search = experiment(tiny_config(), tmp_path)
    with SearchReporter(search) as reporter:
        search.run(stop, reporter.update)
    assert (reporter.summary()["best"], reporter.baseline) == (None, None)
    reporter.print_summary()
    assert "no candidate was trained; give a larger --budget" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_progress_counts_candidates_and_compares_the_best_with_the_reference(done: SearchReporter) -> None:
    search = search_of(done)
    shown = progress(search)
    assert (shown.phase, shown.spent, shown.budget, shown.unit) == ("finishing", 5, 5, "trials")
    assert shown.done + shown.stopped == 5
    assert (shown.running, shown.failed) == (0, 0)
    assert shown.best == done.compared()[0].full_miou
    assert (shown.baseline, shown.baseline_name) == (done.baseline.full_miou if done.baseline else None, "plain")
    assert at_this_time(shown, search) is shown


def test_progress_of_a_budget_of_time_has_a_clock(tmp_path: Path) -> None:
    search = experiment(tiny_config("10min"), tmp_path)
    shown = progress(search)
    assert (shown.budget, shown.unit) == (10, "min")
    assert shown.seconds_left == pytest.approx(600, abs=60)
    (tmp_path / "spent_seconds.json").write_text("300")
    search = Experiment.open(tmp_path, space=SPACE)
    later = at_this_time(shown, search)
    assert later.spent == pytest.approx(5, abs=1)
    assert later.seconds_left == pytest.approx(300, abs=60)


def test_the_phase_is_the_earliest_of_the_jobs_in_flight(tmp_path: Path) -> None:
    search = experiment(tiny_config(), tmp_path)
    assert progress(search).phase == "proxy trials"
    jobs = [search.planner.next_job(0) for _ in range(2)]
    assert [job.task for job in jobs if job is not None] == ["prepare", "full"]
    assert progress(search).phase == "training the handcrafted reference"


def test_the_dials_are_told_before_the_search_starts(done: SearchReporter) -> None:
    search = search_of(done)
    text = plan_text(search)
    for part in (
        f"space {SPACE} (48 points), data {DATA}, budget 5trials",
        "images at 1 of their size, crops 64x96, batches of 4, 1 jobs at once on cpu",
        "proxy, on stored features: 5 candidates, compared at steps 2, 6, the best 1/3 go on, sampler random",
        "end to end: 4 steps, 1 finalists and the references, 2 seeds each; "
        "then fresh seeds of the best found and of the best reference",
        " is that of the handcrafted plain",
    ):
        assert part in text


def whole_networks(folder: Path, **options: object) -> Experiment:
    config = tiny_config(space=f"{SPACE}:shared=false").model_copy(update=options)
    return experiment(config, folder)


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"weights": "file.safetensors"}, "pretrained weights"),
        ({}, "the weights of earlier ones"),
        ({"inherit": False}, "random weights"),
    ],
)
def test_the_plan_tells_what_whole_networks_start_from(tmp_path: Path, options: dict[str, object], start: str) -> None:
    text = plan_text(whole_networks(tmp_path, **options))
    assert f"short runs, end to end from {start}: 5 candidates, compared at steps 2, 6, the best 1/3 go on" in text
    assert "proxy" not in text


def test_the_plan_tells_how_many_candidates_fit(tmp_path: Path) -> None:
    config = tiny_config("10min", candidates=None, rungs=(6,))
    for number, warned in ((9, True), (10, False)):
        plan = config.plan.model_copy(update={"expected_candidates": number})
        folder = tmp_path / str(number)
        folder.mkdir()
        text = plan_text(experiment(config.model_copy(update={"plan": plan}), folder))
        assert f"as many candidates as the time allows (about {number}), compared at step 6, sampler random\n" in text
        assert ("these are few: give a larger --budget" in text) == warned


def test_whole_networks_are_not_called_proxies(tmp_path: Path) -> None:
    search = whole_networks(tmp_path, inherit=False)
    reporter = run(search)
    assert progress(search).phase == "finishing"
    page = (tmp_path / "report.html").read_text()
    shown = page[page.index("<body") :]
    assert "Trained end to end from random weights for 2 or 6 steps; the finalists and the references" in shown
    assert "Can a short run be trusted?" in shown
    assert "mIoU short run" in shown
    assert "short run, top rung" in shown
    assert "mIoU proxy" not in shown
    assert "proxy, " not in shown
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert sum(" short run, step 2: mIoU" in line for line in lines) == 5
    assert not any("proxy" in line for line in lines)
    row = reporter.rows[0]
    board = EventAccumulator(str(tmp_path / "tensorboard" / "trials" / row.name))
    board.Reload()
    steps = {event.step: event.value for event in board.Scalars("mIoU/short run")}
    assert steps == {step: pytest.approx(value) for step, value in row.proxy.items()}
    found = Provenance.read(load(tmp_path / "best.json"))
    assert found is not None
    assert {name.split(",")[0] for name in found.miou} == {"short run", "end to end"}


def test_between_two_jobs_the_phase_goes_on(tmp_path: Path) -> None:
    search = whole_networks(tmp_path)
    first = progress(search)
    assert first.phase == "short runs"
    assert progress(search, replace(first, phase="training end to end")).phase == "training end to end"


@pytest.mark.parametrize(("steps", "warned"), [(99, True), (100, False)])
def test_a_short_relaxation_is_warned_of(steps: int, warned: bool, tmp_path: Path) -> None:
    config = gradient_config()
    config = config.model_copy(update={"plan": config.plan.model_copy(update={"relax_steps": steps})})
    text = plan_text(experiment(config, tmp_path))
    assert f"relaxations, {steps} steps each" in text
    assert ("too few steps" in text) == warned


def test_predictions_are_of_the_same_images_each_time(done: SearchReporter) -> None:
    search = search_of(done)
    network = search.best_network()
    assert network is not None
    first, again = (example_predictions(search.problem.val, network) for _ in range(2))
    assert [example.name for example in first] == [example.name for example in again]
    assert len(first) == 3
    for a, b in zip(first, again, strict=True):
        assert torch.equal(torch.as_tensor(a.prediction), torch.as_tensor(b.prediction))
        assert a.prediction.shape == a.truth.shape == (64, 96)
