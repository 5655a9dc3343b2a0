import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from nasseg.jobs.runners import in_process
from nasseg.jobs.runners.dispatch import Delivery
from nasseg.planning.job import Job, JobResult
from nasseg.planning.planner import Planner, PlannerSettings
from nasseg.planning.samplers import SAMPLERS
from tests.planning.made_up import CellSpace, MadeUpWorker, candidate_of, region_of

SPACE = CellSpace(branches=3, operators=5)


def planner() -> Planner:
    plan = PlannerSettings(rungs=(10, 30), full_steps=100, candidates=8, finalists=1)
    return Planner(
        SPACE,
        SAMPLERS["tpe"](region_of(SPACE)),
        plan,
        describe=candidate_of,
        values=lambda outcome: (outcome.miou or 0.0,),
        score=lambda outcome: outcome.miou or 0.0,
    )


class TroubledWorker(MadeUpWorker):
    """Meets `trouble(job)` before each job."""

    def __init__(self, trouble: Callable[[Job], object]) -> None:
        super().__init__()
        self._trouble = trouble

    def run(self, job: Job) -> JobResult:
        self._trouble(job)
        return super().run(job)


def run(
    planner: Planner,
    make_worker: Callable[[], MadeUpWorker],
    runner: Any = in_process.run_jobs,
    spent: Callable[[], float] = lambda: 0.0,
    **options: Any,
) -> Any:
    """Run to the end; gives the results without their times, as they came."""
    started: list[Job] = []
    results: list[JobResult] = []
    delivery = Delivery(planner, started.append, results.append, spent)
    runner(delivery, make_worker, **{"stop": threading.Event(), **options})
    assert [result.job for result in results] == started[: len(results)]
    return [(result.job, result.outcomes) for result in results]


def run_with_ray(planner: Planner, make_worker: Callable[[], MadeUpWorker], **options: Any) -> Any:
    from nasseg.jobs.runners import ray_tune

    return run(planner, make_worker, ray_tune.run_jobs, options=ray_tune.RayOptions(), **options)


def fail(job: Job, number: int, error: Exception) -> None:
    if job.number >= number:
        raise error


def fail_once(job: Job, number: int, error: Exception) -> None:
    if job.number == number:
        raise error


def die_once(job: Job, number: int, marker: Path) -> None:
    if job.number == number and not marker.exists():
        marker.touch()
        os._exit(1)


def test_in_process_runs_all_jobs() -> None:
    plan = planner()
    results = run(plan, MadeUpWorker)
    assert plan.done
    assert {job.task for job, _ in results} == {"prepare", "proxy", "full"}


def test_stop_ends_after_the_running_job() -> None:
    plan, stop, results = planner(), threading.Event(), list[JobResult]()

    def on_result(result: JobResult) -> None:
        results.append(result)
        if len(results) == 4:
            stop.set()

    in_process.run_jobs(Delivery(plan, lambda job: None, on_result, lambda: 0.0), MadeUpWorker, stop=stop)
    assert len(results) == 4
    assert not plan.in_flight


def test_one_candidate_that_fails_is_passed_over() -> None:
    plan = planner()
    results = run(plan, partial(TroubledWorker, partial(fail_once, number=6, error=RuntimeError("out of memory"))))
    failed = next(outcomes[0] for job, outcomes in results if job.number == 6)
    assert (failed.status, failed.message) == ("failed", "RuntimeError: out of memory")
    assert plan.done


def test_repeated_failures_end_the_search() -> None:
    with pytest.raises(RuntimeError, match="3 jobs in a row failed, the last with: RuntimeError: no kernel"):
        run(planner(), partial(TroubledWorker, partial(fail, number=5, error=RuntimeError("no kernel"))))
    with pytest.raises(RuntimeError, match="training the handcrafted reference failed: RuntimeError: no kernel"):
        run(planner(), partial(TroubledWorker, partial(fail, number=0, error=RuntimeError("no kernel"))))


def test_what_is_no_candidates_fault_ends_the_search() -> None:
    plan = planner()
    with pytest.raises(OSError, match="No space left"):
        run(plan, partial(TroubledWorker, partial(fail, number=5, error=OSError(28, "No space left on device"))))
    assert len(plan.in_flight) == 1


@pytest.mark.slow
def test_ray_runs_the_same_jobs_with_the_same_results_and_survives_a_death(tmp_path: Path) -> None:
    expected = run(planner(), MadeUpWorker)
    worker = partial(TroubledWorker, partial(die_once, number=6, marker=tmp_path / "died"))
    assert run_with_ray(planner(), worker) == expected
    assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_a_machine_that_others_fill_does_not_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "20")
    plan = planner()
    run_with_ray(plan, partial(TroubledWorker, lambda job: time.sleep(0.1)))
    assert plan.done


@pytest.mark.slow
def test_a_termination_is_still_the_searchs_own_while_ray_runs() -> None:
    seen: list[object] = []

    def spent() -> float:
        seen.append(signal.getsignal(signal.SIGTERM))
        return 0.0

    def handle(number: int, frame: object) -> None:
        raise AssertionError("no signal is sent")

    before = signal.signal(signal.SIGTERM, handle)
    try:
        run_with_ray(planner(), MadeUpWorker, spent=spent)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert set(seen) == {handle}


@pytest.mark.slow
def test_nobody_outside_this_machine_reaches_its_processes() -> None:
    seen: set[str] = set()

    def spent() -> float:
        ours = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
        for connection in psutil.net_connections("tcp"):
            if connection.pid in ours and connection.status == psutil.CONN_LISTEN:
                seen.add(connection.laddr.ip.removeprefix("::ffff:"))
        return 0.0

    run_with_ray(planner(), MadeUpWorker, spent=spent)
    assert seen == {"127.0.0.1"}


@pytest.mark.slow
def test_ray_raises_what_is_no_candidates_fault() -> None:
    with pytest.raises(OSError, match="No space left"):
        run_with_ray(
            planner(), partial(TroubledWorker, partial(fail, number=5, error=OSError(28, "No space left on device")))
        )


@pytest.mark.slow
def test_ray_abandons_running_jobs_when_stopped(tmp_path: Path) -> None:
    plan, stop = planner(), threading.Event()
    threading.Thread(target=_set_when_there, args=(tmp_path / "running", stop), daemon=True).start()
    run_with_ray(plan, partial(TroubledWorker, partial(sleep_at, number=4, marker=tmp_path / "running")), stop=stop)
    assert [job.number for job in plan.in_flight] == [4]


def sleep_at(job: Job, number: int, marker: Path) -> None:
    if job.number == number:
        marker.touch()
        time.sleep(300)


def _set_when_there(marker: Path, stop: threading.Event) -> None:
    while not marker.exists():
        time.sleep(0.1)
    stop.set()
