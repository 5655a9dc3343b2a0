from itertools import pairwise

import pytest

from nasseg.planning.job import Job, JobResult
from nasseg.planning.relaxations import RelaxationSchedule


def result(seed: int, start: int, stop: int, found: bool = True) -> JobResult:
    job = Job(number=1, task="relax", candidates=(), seed=seed, start_step=start, stop_step=stop)
    return (
        JobResult(job=job, outcomes=(), seconds=1.0, found=({},), message=None) if found else JobResult.failed(job, "x")
    )


def test_each_seed_is_trained_in_ten_parts() -> None:
    relaxing = RelaxationSchedule(range(3, 5), steps=25, share=1.0)
    parts = []
    while (part := relaxing.next_part(0.0)) is not None:
        parts.append(part)
        relaxing.take_in(result(*part))
        relaxing.end(0.0)
    steps = [*range(0, 25, 3), 25]
    expected = [(seed, start, stop) for seed in (3, 4) for start, stop in pairwise(steps)]
    assert parts == expected
    assert relaxing.is_over


def test_seeds_are_trained_side_by_side() -> None:
    relaxing = RelaxationSchedule(range(2), steps=10, share=1.0)
    assert [relaxing.next_part(0.0) for _ in range(3)] == [(0, 0, 1), (1, 0, 1), None]


def test_after_its_share_of_the_budget_what_was_found_counts() -> None:
    relaxing = RelaxationSchedule(range(1), steps=10, share=0.5)
    relaxing.take_in(result(0, 0, 4))
    assert relaxing.end(0.4) == []
    assert relaxing.next_part(0.4) == (0, 4, 5)
    assert relaxing.end(0.6) == []  # its part is still in flight
    relaxing.take_in(result(0, 4, 5))
    assert relaxing.end(0.6) == [result(0, 4, 5)]
    assert relaxing.end(0.6) == []
    assert relaxing.is_over


def test_a_first_part_is_trained_however_late() -> None:
    assert RelaxationSchedule(range(1), steps=10, share=0.5).next_part(0.9) == (0, 0, 1)


def test_a_failed_part_ends_its_relaxation_and_all_failed_end_the_search() -> None:
    relaxing = RelaxationSchedule(range(2), steps=10, share=1.0)
    relaxing.take_in(result(0, 0, 1, found=False))
    assert relaxing.end(0.0) == [result(0, 0, 1, found=False)]
    assert relaxing.next_part(0.0) == (1, 0, 1)
    relaxing.take_in(result(1, 0, 1, found=False))
    with pytest.raises(RuntimeError, match="all relaxations failed, the last with: x"):
        relaxing.next_part(0.0)


def test_parts_that_found_nothing_yet_are_no_failures() -> None:
    relaxing = RelaxationSchedule(range(1), steps=20, share=0.5)
    assert relaxing.next_part(0.0) == (0, 0, 2)
    relaxing.take_in(result(0, 0, 2).model_copy(update={"found": ()}))
    assert relaxing.end(0.4) == []
    assert relaxing.next_part(0.4) == (0, 2, 4)
    relaxing.take_in(result(0, 2, 4).model_copy(update={"found": ()}))
    assert [ended.found for ended in relaxing.end(0.6)] == [()]
    assert relaxing.is_over
    assert relaxing.next_part(0.6) is None


def test_without_relaxations_nothing_is_to_do() -> None:
    relaxing = RelaxationSchedule(range(0), steps=0, share=1.0)
    assert relaxing.is_over
    assert relaxing.next_part(0.0) is None
