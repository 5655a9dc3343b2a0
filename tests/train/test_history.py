from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasseg.train.retraining.history import History, Validation

SCORES = st.lists(st.integers(0, 4).map(float), min_size=1, max_size=12)


def history(scores: list[float]) -> History:
    made = History()
    for index, score in enumerate(scores):
        made = made.adding(10 * (index + 1), score)
    return made


@given(SCORES)
def test_the_best_is_the_first_of_the_highest(scores: list[float]) -> None:
    assert history(scores).best == Validation(step=10 * (scores.index(max(scores)) + 1), miou=max(scores))


@given(SCORES, st.integers(1, 5))
def test_it_stalls_once_so_many_validations_exceeded_nothing_before(scores: list[float], patience: int) -> None:
    before, latest = scores[:-patience], scores[-patience:]
    assert history(scores).stalled(patience) == (bool(before) and max(latest) <= max(before))


@given(SCORES, st.integers(0, 12))
def test_a_repeated_step_takes_the_place_of_what_came_after(scores: list[float], kept: int) -> None:
    known = history(scores)
    assert known.until(10 * kept) == history(scores[:kept])
    again = Validation(step=10 * (kept + 1), miou=9.0)
    assert known.adding(again.step, again.miou).validations == (*known.validations[:kept], again)
    assert known.has(10 * kept) == (1 <= kept <= len(scores))


def test_files(tmp_path: Path) -> None:
    assert History.load(tmp_path) == History()
    history([0.25, 0.5]).save(tmp_path)
    assert History.load(tmp_path) == history([0.25, 0.5])
    (tmp_path / "validations.json").write_text('{"validations": 3}')
    with pytest.raises(ValueError, match=r"validations\.json: validations is 3, but must be"):
        History.load(tmp_path)
