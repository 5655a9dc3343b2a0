from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from baselines.dense_prediction_cell import PUBLISHED
from nasseg.report.figures.pictures import Example, Palette
from nasseg.report.relaxation import draw_snapshot
from nasseg.report.tensorboard import RelaxationBoard, SearchBoard, TrainBoard, flat_choice
from search_spaces.dpc import DPC
from tests.report.made_up import rows, snapshot

PALETTE = Palette(("road", "sky"), ((255, 0, 0), (0, 0, 255)), ignore_index=255)
IMAGE = torch.zeros(3, 8, 8, dtype=torch.uint8)
MASK = torch.zeros(8, 8, dtype=torch.uint8)


def load(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = load(folder)
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_each_trial_is_a_run_with_curves_costs_and_its_choice(tmp_path: Path) -> None:
    with SearchBoard(tmp_path) as board:
        board.show_trials(rows())
    assert {path.name for path in (tmp_path / "trials").iterdir()} == {"aspp", "b" * 10, "c" * 10, "d" * 10}
    assert scalars(tmp_path / "trials" / "aspp") == {
        "mIoU/proxy": [(100, pytest.approx(0.5)), (300, pytest.approx(0.6))],
        "mIoU/end to end, mean over seeds": [(2, pytest.approx(0.71))],
        "score": [(4, pytest.approx(0.71))],
        "trial cost/MAdds (G)": [(0, 2.0)],
        "trial cost/parameters (M)": [(0, 3.5)],
        "trial cost/latency (ms)": [(0, 30.0)],
    }
    metadata = load(tmp_path / "trials" / "aspp").SummaryMetadata("_hparams_/session_start_info")
    data = HParamsPluginData.FromString(metadata.plugin_data.content)
    hparams = data.session_start_info.hparams
    assert hparams["candidate"].string_value == "aspp"
    assert hparams["branches.1.rate"].string_value == "6x6"
    assert hparams["branches.1.input"].number_value == -1


def test_only_what_is_new_is_written(tmp_path: Path) -> None:
    aspp = rows()[0]
    with SearchBoard(tmp_path) as board:
        board.show_trials([replace(aspp, proxy={100: 0.5}, full={}, score=0.5)])
        board.show_trials([aspp])
        board.show_trials([aspp])
    written = scalars(tmp_path / "trials" / "aspp")
    assert written["mIoU/proxy"] == [(100, pytest.approx(0.5)), (300, pytest.approx(0.6))]
    assert written["score"] == [(1, pytest.approx(0.5)), (4, pytest.approx(0.71))]
    assert written["trial cost/MAdds (G)"] == [(0, 2.0)]


def test_only_the_trials_that_are_shown_keep_their_runs(tmp_path: Path) -> None:
    first, second, *_ = rows()
    with SearchBoard(tmp_path) as board:
        board.show_trials([first, second])
        board.show_trials([second])
        assert [path.name for path in (tmp_path / "trials").iterdir()] == [second.name]
        board.show_trials([first])
    assert [path.name for path in (tmp_path / "trials").iterdir()] == [first.name]
    assert len(scalars(tmp_path / "trials" / "aspp")["mIoU/proxy"]) == 2


def test_a_resumed_search_shows_each_trial_once(tmp_path: Path) -> None:
    for _ in range(2):
        with SearchBoard(tmp_path) as board:
            board.show_trials(rows())
    assert len(scalars(tmp_path / "trials" / "aspp")["mIoU/proxy"]) == 2


def test_the_search_shows_scores_and_pictures(tmp_path: Path) -> None:
    with SearchBoard(tmp_path) as board:
        board.add_best(0.6, 0.5, spent=10)
        board.add_best(0.7, 0.5, spent=20)
        board.add_front(rows(), step=20)
        board.add_best_network(DPC().architecture(PUBLISHED, classes=2), "cell", (), step=20)
        board.add_predictions([Example("a", IMAGE, MASK, MASK)], PALETTE, step=20)
    tag = "best/score against budget spent"
    assert scalars(tmp_path / "search" / "best") == {tag: [(10, pytest.approx(0.6)), (20, pytest.approx(0.7))]}
    assert scalars(tmp_path / "search" / "baseline") == {tag: [(10, 0.5), (20, 0.5)]}
    events = load(tmp_path / "search" / "best")
    assert set(events.Tags()["images"]) == {"best/cell", "best/mIoU against cost", "predictions"}
    assert events.Images("best/cell")[0].step == 20


def test_a_training_shows_loss_scores_and_predictions(tmp_path: Path) -> None:
    with TrainBoard(tmp_path) as board:
        board.add_step(1, loss=2.5, learning_rate=0.5)
        board.add_validation(1, 0.5, (0.5, None), ("road", "sky"))
        board.add_predictions([Example("a", IMAGE, MASK)], PALETTE, step=1)
    assert scalars(tmp_path) == {
        "train/loss": [(1, 2.5)],
        "train/learning rate": [(1, 0.5)],
        "val/mIoU": [(1, 0.5)],
        "val IoU by class/road": [(1, 0.5)],
    }
    assert load(tmp_path).Tags()["images"] == ["predictions"]


def test_a_relaxation_shows_losses_cost_and_drawings(tmp_path: Path) -> None:
    with RelaxationBoard(tmp_path, step=100) as board:
        for step in (100, 300):
            board.add_snapshot(snapshot(step=step))
        board.add_figures(draw_snapshot(snapshot(step=300)), step=300)
    assert scalars(tmp_path) == {
        "relaxation/loss, weights": [(100, 2.25), (300, 1.75)],
        "relaxation/loss, architecture": [(300, 2.0)],
        "relaxation/expected cost": [(100, 4e9), (300, 4e9)],
    }
    assert set(load(tmp_path).Tags()["images"]) == {"relaxation/network", "relaxation/cell"}
    assert load(tmp_path).Images("relaxation/cell")[0].step == 300


def test_a_relaxation_that_went_back_hides_what_was_after(tmp_path: Path) -> None:
    for steps in ((100, 200, 300), (150, 250)):
        with RelaxationBoard(tmp_path, steps[0]) as board:
            for step in steps:
                board.add_snapshot(snapshot(step=step))
    assert [step for step, _ in scalars(tmp_path)["relaxation/expected cost"]] == [100, 150, 250]


def test_a_choice_becomes_one_level_of_names() -> None:
    choice = {"width": 0.5, "deep": {"on": True}, "ops": ["a", "b"], "branches": [{"op": "atrous", "rate": [6, 3]}, {}]}
    branch = {"branches.0.op": "atrous", "branches.0.rate": "6x3"}
    assert flat_choice(choice) == {"width": 0.5, "deep.on": True, "ops.0": "a", "ops.1": "b", **branch}
    assert flat_choice({"grid": None, "empty": []}) == {}
