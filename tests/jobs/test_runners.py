import math
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
from nasseg.planning.machine import PROXY_OVERHEAD_SECONDS, JobTimes
from nasseg.planning.planner import Planner, PlannerSettings
from nasseg.planning.samplers import SAMPLERS
from tests.planning.made_up import CellSpace, MadeUpWorker, ManyReferences, candidate_of, region_of

SPACE = CellSpace(branches=3, operators=5)


def planner(space: CellSpace = SPACE, total_seconds: float = math.inf, **changes: Any) -> Planner:
    plan = PlannerSettings(rungs=(10, 30), full_steps=100, candidates=8, finalists=1).model_copy(update=changes)
    return Planner(
        space,
        SAMPLERS["tpe"](region_of(space)),
        plan,
        total_seconds=total_seconds,
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
    make_worker: Callable[..., MadeUpWorker],
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


def run_with_ray(planner: Planner, make_worker: Callable[..., MadeUpWorker], **options: Any) -> Any:
    from nasseg.jobs.runners import ray_actors

    return run(planner, make_worker, ray_actors.run_jobs, options=ray_actors.RayOptions(), **options)


def fail(job: Job, number: int, error: Exception) -> None:
    if job.number >= number:
        raise error


def fail_once(job: Job, number: int, error: Exception) -> None:
    if job.number == number:
        raise error


def test_in_process_runs_all_jobs() -> None:
    plan = planner()
    results = run(plan, MadeUpWorker)
    assert plan.done
    assert {job.task for job, _ in results} == {"prepare", "proxy", "full"}


@pytest.mark.parametrize("planned", [1, 2, 8])
def test_in_process_keeps_time_for_fresh_seeds_however_many_jobs_were_planned_at_once(planned: int) -> None:
    total_seconds, now = 100.0, [0.0]

    class TimedWorker(MadeUpWorker):
        def run(self, job: Job) -> JobResult:
            seconds = 1.0 if job.task == "proxy" else 10.0
            now[0] += seconds
            return super().run(job).model_copy(update={"seconds": seconds})

    changes: dict[str, Any] = {"candidates": None, "finalists": 2, "proxy_share": 1.0, "concurrency": planned}
    plan = planner(total_seconds=total_seconds, **changes)
    run(plan, TimedWorker, spent=lambda: now[0] / total_seconds)
    assert now[0] <= total_seconds
    assert sum(len(trial.fresh) for trial in plan.trials) == 2


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


def test_a_job_that_fails_is_tried_once_more_by_a_new_worker() -> None:
    expected, made, failed = run(planner(), MadeUpWorker), list[MadeUpWorker](), list[int]()

    def fail_at_first(job: Job) -> None:
        if job.number in {1, 6} - set(failed):
            failed.append(job.number)
            raise RuntimeError("no kernel")

    def make_worker() -> MadeUpWorker:
        made.append(TroubledWorker(fail_at_first))
        return made[-1]

    assert run(planner(), make_worker) == expected
    assert failed == [1, 6]
    assert len(made) == 3
    assert made[1].jobs[0].number == 1


def test_repeated_failures_end_the_search() -> None:
    with pytest.raises(RuntimeError, match="3 jobs in a row failed, the last with: RuntimeError: no kernel"):
        run(planner(), partial(TroubledWorker, partial(fail, number=5, error=RuntimeError("no kernel"))))
    with pytest.raises(RuntimeError, match="training the handcrafted reference failed: RuntimeError: no kernel"):
        run(planner(), partial(TroubledWorker, partial(fail, number=0, error=RuntimeError("no kernel"))))


def test_after_an_error_of_cuda_that_stays_this_process_runs_no_other_job() -> None:
    lost = RuntimeError("CUDA error: an illegal memory access was encountered")
    plan, workers = planner(), list[TroubledWorker]()

    def make_worker() -> MadeUpWorker:
        workers.append(TroubledWorker(partial(fail_once, number=6, error=lost)))
        return workers[-1]

    with pytest.raises(RuntimeError, match=r"can use the GPU no more .*illegal memory access.*; go on with"):
        run(plan, make_worker)
    assert [job.number for worker in workers for job in worker.jobs] == [1, 2, 3, 4, 5]
    assert not plan.in_flight
    assert plan.trials[-1].failed
    full = RuntimeError("CUDA error: out of memory")
    plan = planner()
    run(plan, partial(TroubledWorker, partial(fail_once, number=6, error=full)))
    assert plan.done


class Diverging(MadeUpWorker):
    """Trains the first reference; the losses of all others are not finite, or `even` that of the reference."""

    def __init__(self, even: bool) -> None:
        super().__init__()
        self._even = even

    def run(self, job: Job) -> JobResult:
        self.broken = frozenset(c.key for c in job.candidates if self._even or job.task != "prepare")
        return super().run(job)


def test_a_loss_that_is_never_finite_ends_the_search_with_that_reason() -> None:
    reason = "is not finite.*; check the images, the masks and --weights"
    with pytest.raises(RuntimeError, match=f"loss of the handcrafted reference {reason}"):
        run(planner(), partial(Diverging, even=True))
    plan = planner()
    assert run(plan, partial(Diverging, even=False))  # one network has a score
    assert {trial.status(30) for trial in plan.trials} == {"nonfinite"}
    delivery = Delivery(plan, lambda job: None, lambda result: None, lambda: 0.0)
    for trial in plan.trials:
        trial.full.clear()
    with pytest.raises(RuntimeError, match=f"loss of all {len(plan.trials)} candidates {reason}"):
        delivery.end()


class TooLarge(MadeUpWorker):
    """Trains the candidates of some jobs; those of the others, from the `first` to the `last`, do not fit."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self._unfit = range(first, last + 1)

    def run(self, job: Job) -> JobResult:
        result = super().run(job)
        if job.number not in self._unfit:
            return result
        unfit = {"status": "unfit", "miou": None, "message": "the GPU lacks memory"}
        return result.model_copy(update={"outcomes": tuple(o.model_copy(update=unfit) for o in result.outcomes)})


def test_a_candidate_that_does_not_fit_is_passed_over_and_not_tried_again() -> None:
    plan = planner()
    results = run(plan, partial(TooLarge, first=6, last=6))
    assert plan.done
    assert len({job.number for job, _ in results}) == len(results)
    (passed_over,) = (trial for trial in plan.trials if trial.status(30) == "failed")
    assert "unfit" in {outcome.status for outcome in passed_over.proxy.values()}


def test_a_device_that_is_too_small_for_all_candidates_ends_the_search() -> None:
    with pytest.raises(RuntimeError, match="training the handcrafted reference failed: the GPU lacks memory"):
        run(planner(SPACE), partial(TooLarge, first=1, last=1000))
    with pytest.raises(RuntimeError, match="3 jobs in a row failed, the last with: the GPU lacks memory"):
        run(planner(ManyReferences(branches=3, operators=5)), partial(TooLarge, first=1, last=1000))


def test_a_job_that_waits_for_ever_is_interrupted_and_tried_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Delivery, "limit_seconds", lambda self, job: 0.2 if job.number in {4, 6} else 60.0)
    waited: list[int] = []

    def wait(job: Job) -> None:
        if job.number == 6 or (job.number == 4 and job.number not in waited):
            waited.append(job.number)
            threading.Event().wait(60)

    plan = planner()
    results = run(plan, partial(TroubledWorker, wait))
    assert waited == [4, 6, 6]
    messages = {job.number: outcomes[0].message for job, outcomes in results}
    assert messages[4] is None
    assert (messages[6] or "").endswith("it took longer than 0 s")
    assert plan.done


def test_what_a_job_may_take_follows_from_what_it_should_and_from_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    times = JobTimes(trial_step_seconds=1, trial_scoring_seconds=2, full_step_seconds=10, scoring_seconds=20)
    plan, spent = planner(), 0.0
    prepare = plan.next_job(0.0)
    assert prepare is not None
    assert (prepare.task, prepare.stop_step) == ("prepare", 100)

    def limit(times: JobTimes | None) -> float:
        plan.times = times
        return Delivery(plan, lambda job: None, lambda result: None, lambda: spent).limit_seconds(prepare)

    assert limit(None) == math.inf
    assert limit(times) == pytest.approx(5 * (1000 + 20 + PROXY_OVERHEAD_SECONDS) + 300)
    plan.clock.note("prepare", 2000.0)
    assert limit(times) == pytest.approx(5 * 1.1 * 2000 + 300)
    plan.clock.total_seconds = 4000.0
    assert limit(None) == pytest.approx(4000 + 1000)
    spent = 0.9
    assert limit(times) == pytest.approx(400 + 1000)


@pytest.mark.parametrize(("failed_at", "asked_at", "is_tried"), [(50, 55, True), (95, 95, False), (85, 95, False)])
def test_a_failed_job_is_tried_again_only_if_it_ends_in_time(failed_at: int, asked_at: int, is_tried: bool) -> None:
    clock, worker, results = [0.0], MadeUpWorker(), list[JobResult]()
    plan = planner(total_seconds=100.0)
    delivery = Delivery(plan, lambda job: None, results.append, lambda: clock[0] / 100)
    while (job := delivery.next_job()) is not None and not plan.clock.taken.get(job.kind):
        clock[0] += 10
        delivery.deliver(worker.run(job).model_copy(update={"seconds": 10.0}))
    assert job is not None
    known = len(results)
    clock[0] = failed_at
    delivery.deliver(JobResult.failed(job, "no kernel", 10.0))
    clock[0] = asked_at
    assert (delivery.next_job() == job) == is_tried
    assert [result.is_failure for result in results[known:]] == ([] if is_tried else [True])


def test_what_is_no_candidates_fault_ends_the_search() -> None:
    plan = planner()
    with pytest.raises(OSError, match="No space left"):
        run(plan, partial(TroubledWorker, partial(fail, number=5, error=OSError(28, "No space left on device"))))
    assert len(plan.in_flight) == 1


@pytest.mark.slow
def test_ray_runs_the_same_jobs_with_the_same_results_and_replaces_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Delivery, "limit_seconds", lambda self, job: 1.0 if job.number == 10 else 60.0)
    expected = run(planner(), MadeUpWorker)
    assert run_with_ray(planner(), partial(TroubledWorker, partial(trouble, folder=tmp_path))) == expected
    processes = [set((tmp_path / name).read_text().split()) for name in ("dies", "fails", "hangs")]
    used = [(tmp_path / f"{number}").read_text() for number in range(1, len(expected) + 1)]
    assert list(dict.fromkeys(used)) == [used[0], used[5], used[7], used[9]]
    assert processes == [{used[4]}, {used[6]}, {used[8]}]


def trouble(job: Job, folder: Path) -> None:
    """Note the process that tries each job; the first to try jobs 6, 8 and 10 dies, fails and hangs."""
    process = str(os.getpid())
    (folder / f"{job.number}").write_text(process)
    kind = {6: "dies", 8: "fails", 10: "hangs"}.get(job.number)
    if kind is None or (folder / kind).exists():
        return
    (folder / kind).write_text(process)
    if kind == "dies":
        os._exit(1)
    if kind == "fails":
        raise RuntimeError("CUDA error: device-side assert triggered")
    time.sleep(300)


@pytest.mark.slow
def test_a_broken_gpu_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from nasseg.jobs.runners import ray_actors

    monkeypatch.setattr(ray, "init", partial(ray.init, num_gpus=2))
    monkeypatch.setattr("nasseg.jobs.runners.failures.MOST_IN_A_ROW", 1)
    plan = planner()
    delivery = Delivery(plan, lambda job: None, lambda result: None, lambda: 0.0)
    options = ray_actors.RayOptions(concurrency=2, gpus_per_job=1)
    make_worker = partial(TroubledWorker, partial(fail_on_the_first_gpu, folder=tmp_path))
    ray_actors.run_jobs(delivery, make_worker, stop=threading.Event(), options=options)
    assert plan.done
    assert not any(trial.failed for trial in plan.trials)
    (kept_out,) = delivery.failures.kept_out
    assert kept_out.endswith(", GPU 0")


def fail_on_the_first_gpu(job: Job, folder: Path) -> None:
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    (folder / gpu).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.05)
    if gpu == "0":
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")


@pytest.mark.slow
def test_the_end_of_ray_ends_the_search_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()

    def spent() -> float:
        for child in psutil.Process().children(recursive=True):
            if child.name() == "gcs_server":
                child.kill()
        return 0.0

    with pytest.raises(RuntimeError, match="Ray has ended: its server cannot be reached at "):
        run_with_ray(
            planner(), lambda folder: TroubledWorker(lambda job: time.sleep(60)), spent=spent, run_folder=tmp_path
        )


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
