import pytest
from pydantic import ValidationError

from nasseg.planning.final.clock import Clock
from nasseg.planning.job import Candidate, Job, JobResult, Outcome, Status

A, B = Candidate(key="a", choice={}), Candidate(key="b", choice={"x": 1}, label="aspp")


def test_a_result_survives_json() -> None:
    job = Job(number=3, task="proxy", candidates=(A, B), seed=1, start_step=10, stop_step=30)
    ok = Outcome(key="a", status="ok", step=30, miou=0.1 + 0.2, class_iou=(0.5, None), madds=10**12, params=5)
    result = JobResult(job=job, outcomes=(ok, Outcome(key="b", status="nonfinite", step=12)), seconds=1.5)
    assert JobResult.model_validate_json(result.model_dump_json()) == result


def test_outcomes_belong_to_the_jobs_candidates() -> None:
    job = Job(number=0, task="proxy", candidates=(A,), seed=0, start_step=0, stop_step=30)
    with pytest.raises(ValidationError, match=r"outcomes are for \['b'\]; must be for the job's candidates \['a'\]"):
        JobResult(job=job, outcomes=(Outcome(key="b", status="failed", step=0),), seconds=0)
    assert [o.status for o in JobResult.failed(job, "died").outcomes] == ["failed"]


@pytest.mark.parametrize(
    ("status", "is_failure", "was_trained"),
    [("ok", False, True), ("nonfinite", False, True), ("unfit", False, False), ("failed", True, False)],
)
def test_what_was_not_trained_is_a_failure_unless_it_does_not_fit(
    status: Status, is_failure: bool, was_trained: bool
) -> None:
    job = Job(number=0, task="full", candidates=(A,), seed=0, start_step=0, stop_step=30)
    result = JobResult(job=job, outcomes=(Outcome(key="a", status=status, step=0, miou=0.5),), seconds=60)
    assert (result.is_failure, result.was_trained) == (is_failure, was_trained)
    clock = Clock(total_seconds=600)
    clock.take_in(result, is_run=False)
    assert clock.expected("full") == (pytest.approx(66) if was_trained else 0)


def test_impossible_jobs_are_refused() -> None:
    with pytest.raises(ValidationError, match="stop_step is 10; must be above start_step, which is 10"):
        Job(number=0, task="proxy", candidates=(A,), seed=0, start_step=10, stop_step=10)
    with pytest.raises(ValidationError, match="a full job has 2 candidates; must be 1"):
        Job(number=0, task="full", candidates=(A, B), seed=0, start_step=0, stop_step=10)
    with pytest.raises(ValidationError, match="a proxy job has 0 candidates; must be 1"):
        Job(number=0, task="proxy", candidates=(), seed=0, start_step=0, stop_step=10)
    with pytest.raises(ValidationError, match="a relax job has 1 candidates; must be 0"):
        Job(number=0, task="relax", candidates=(A,), seed=0, start_step=0, stop_step=10)
    with pytest.raises(ValidationError, match="must have a miou"):
        Outcome(key="a", status="ok", step=10)


def test_a_relaxation_finds_choices_or_says_why_not() -> None:
    job = Job(number=1, task="relax", candidates=(), seed=3, start_step=0, stop_step=10)
    result = JobResult(job=job, outcomes=(), seconds=2.0, found=({"x": [1, 2]},))
    assert JobResult.model_validate_json(result.model_dump_json()) == result
    assert JobResult.failed(job, "died") == JobResult(job=job, outcomes=(), seconds=0, message="died")
