from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasseg.planning.halving import Rung, longest_that

few = st.integers(0, 4).map(float)
pairs = st.lists(st.one_of(st.none(), st.tuples(few, few)), max_size=25)


@given(st.lists(st.one_of(st.none(), few), max_size=30))
def test_with_one_objective_the_order_is_that_of_its_values(values: list[float | None]) -> None:
    rung = Rung(3)
    for number, value in enumerate(values):
        rung.finish(number, None if value is None else (value,))
    finished = [(-value, number) for number, value in enumerate(values) if value is not None]
    assert list(rung.ranking()) == [number for _, number in sorted(finished)]
    assert len(rung) == len(values)


@given(pairs, st.integers(2, 4), st.integers(1, 3))
def test_the_best_of_those_waiting_are_promoted_until_they_are_the_share(
    finished: list[tuple[float, float] | None], reduction: int, limit: int
) -> None:
    rung, promoted = Rung(reduction), set[int]()
    for number, objectives in enumerate(finished):
        rung.finish(number, objectives)
        waiting = [i for i in rung.ranking() if i not in promoted]
        assert rung.waiting() == waiting
        free = (number + 1) // reduction - len(promoted)
        assert rung.promotable(limit) == waiting[: min(limit, free)]
        for best in rung.promotable(1):
            rung.promote(best)
            promoted.add(best)
    assert set(rung.ranking()) == {i for i, objectives in enumerate(finished) if objectives is not None}
    assert len(rung) == len(finished)


@given(pairs)
def test_nothing_stands_behind_what_it_beats(finished: list[tuple[float, float] | None]) -> None:
    rung = Rung(2)
    for number, objectives in enumerate(finished):
        rung.finish(number, objectives)
    order = [point for i in rung.ranking() if (point := finished[i]) is not None]
    for i, behind in enumerate(order):
        assert not any(behind != ahead and behind[0] >= ahead[0] and behind[1] >= ahead[1] for ahead in order[:i])


def test_the_lonely_come_before_the_crowded_and_the_next_front_after_both() -> None:
    rung = Rung(2)
    for number, objectives in enumerate([(0, 9), (4, 4.5), (5, 4), (6, 3), (9, 0), (1, 3), None]):
        rung.finish(number, objectives)
    # Ends first. Between them, of the range of 9 in each: (5 + 5) / 9, (2 + 1.5) / 9, (4 + 4) / 9.
    assert list(rung.ranking()) == [0, 4, 1, 3, 2, 5]
    assert rung.promotable(10) == [0, 4, 1]


def test_a_promotion_counts_wherever_the_promoted_one_stands_by_now() -> None:
    rung = Rung(2)
    rung.finish(0, (1, 1))
    rung.finish(1, (0, 0))
    assert rung.promotable(10) == [0]
    rung.promote(0)
    rung.finish(2, (2, 2))
    assert rung.promotable(10) == []
    rung.finish(3, (0, 0.5))
    assert list(rung.ranking()) == [2, 0, 3, 1]
    assert rung.promotable(10) == [2]


def test_promotions_beyond_the_share_use_it_up() -> None:
    rung = Rung(2)
    for number in range(4):
        rung.finish(number, (number, 0))
    for number in (0, 1, 2):
        rung.promote(number)
    assert rung.promotable(10) == []
    assert rung.waiting() == [3]


@pytest.mark.parametrize("objectives", [(0.5,), (0.5, 1.0, 2.0), (0.5, float("nan")), (0.5, float("-inf"))])
def test_objectives_that_cannot_be_compared_are_refused(objectives: tuple[float, ...]) -> None:
    rung = Rung(2)
    rung.finish(0, (0.5, 1.0))
    with pytest.raises(ValueError, match=r"candidate 1 .* must be 2 finite numbers"):
        rung.finish(1, objectives)
    assert list(rung.ranking()) == [0]


def test_more_than_two_objectives_are_refused() -> None:
    with pytest.raises(ValueError, match="must be one or two finite numbers"):
        Rung(2).finish(0, (1.0, 2.0, 3.0))


@pytest.mark.parametrize("objectives", [1, 2])
def test_what_is_promoted_elsewhere_counts_but_is_not_offered(objectives: int) -> None:
    rung = Rung(2)
    for number, value in enumerate((0.9, 0.8, 0.7, 0.6)):
        rung.finish(number, (value, value)[:objectives], own=number in (1, 2))
    assert rung.waiting() == [1, 2]
    assert rung.promotable(10) == [1], "of the two best of all one is own"
    rung.promote(0)
    rung.promote(1)
    assert rung.promotable(10) == []
    assert rung.waiting() == [2]


def test_own_candidates_behind_the_share_of_all_wait_even_if_those_ahead_are_not_promoted() -> None:
    rung = Rung(2)
    for number, value in enumerate((0.9, 0.8, 0.7, 0.6)):
        rung.finish(number, (value,), own=number >= 2)
    assert rung.promotable(10) == []
    rung.finish(4, (0.85,))
    rung.finish(5, None, own=False)
    assert rung.promotable(10) == [4]


@given(st.integers(1, 40), st.integers(0, 40), st.lists(st.integers(0, 90), max_size=3), st.data())
def test_the_longest_that_suffices_is_found_beyond_jumps(
    shortest: int, more: int, jumps: list[int], data: st.DataObject
) -> None:
    longest = shortest + more
    starts = [shortest, *sorted(jump + 1 for jump in jumps if shortest <= jump < longest), longest + 1]
    sufficing = set[int]()
    for start, end in pairwise(starts):
        sufficing.update(range(start, data.draw(st.integers(start, end))) if start < end else ())
    assert longest_that(sufficing.__contains__, shortest, longest, jumps) == max(sufficing, default=shortest)
