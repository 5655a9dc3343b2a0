from dataclasses import replace

import pytest

from nasseg.planning.candidates import FIRST_FRESH_SEED
from nasseg.report.rows import make_row
from tests.report.made_up import RUNGS, make_trials, ok, rows


def test_rows_say_how_far_each_candidate_came() -> None:
    assert [row.status for row in rows()] == ["complete", "complete", "stopped", "nonfinite", "running"]
    assert [row.step for row in rows()] == [300, 300, 100, None, None]
    assert [row.name for row in rows()] == ["aspp", "b" * 10, "c" * 10, "d" * 10, "e" * 10]
    assert rows()[3].message == "the loss is nan at step 37"


def test_scores_are_of_the_highest_rung_and_of_all_seeds() -> None:
    aspp, best, stopped, broken, _ = rows()
    assert aspp.proxy == {100: 0.5, 300: 0.6}
    assert aspp.proxy_miou == 0.6
    assert aspp.full_miou == pytest.approx(0.71)
    assert aspp.full_miou_deviation == pytest.approx(0.0002**0.5)
    assert aspp.class_iou == pytest.approx((0.71, None, 0.355))
    assert stopped.class_iou == (0.4, None, 0.2)
    assert (best.latency_ms, stopped.latency_ms) == (20.0, None)
    assert (best.madds, best.params, best.score) == (1_000_000_000, 3_500_000, 0.76)
    assert (broken.proxy_miou, broken.full_miou, broken.full_miou_deviation) == (None, None, None)


def test_what_was_predicted_and_which_limit_is_broken_is_known() -> None:
    trial = make_trials()[0]
    outcome = trial.proxy[100].model_copy(update={"latency_ms": 9.5})
    candidate = trial.candidate.model_copy(update={"constraints": {"params": 0.5}})
    row = make_row(replace(trial, candidate=candidate, proxy={100: outcome}), RUNGS[-1], None, None)
    assert (row.predicted_latency_ms, row.feasible) == (9.5, False)
    assert (rows()[0].predicted_latency_ms, rows()[0].feasible) == (None, True)


def test_fresh_seeds_are_kept_apart() -> None:
    trial = make_trials()[0]
    fresh = {FIRST_FRESH_SEED + seed: ok(trial.key, 900, miou) for seed, miou in enumerate((0.2, 0.4))}
    row = make_row(replace(trial, full={**trial.full, **fresh}), RUNGS[-1], None, None)
    assert (row.full_miou, row.fresh_miou) == (pytest.approx(0.71), pytest.approx(0.3))


def test_one_seed_has_no_deviation() -> None:
    trial = make_trials()[0]
    row = make_row(replace(trial, full={0: trial.full[0]}), RUNGS[-1], None, None)
    assert (row.full_miou, row.full_miou_deviation, row.latency) == (0.7, None, None)
