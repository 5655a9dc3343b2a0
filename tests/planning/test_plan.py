import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasseg.data import open_dataset
from nasseg.jobs.speed import measure_speed
from nasseg.planning.budget import Budget
from nasseg.planning.config import Plan
from nasseg.planning.final.runs import LEAST_PROXY_SHARE
from nasseg.planning.final.timeline import Timeline
from nasseg.planning.machine import Hardware, Speed, cores
from nasseg.planning.options import SearchOptions
from nasseg.planning.plan import IMAGE_SCALES, derive_plan, search_crop
from nasseg.planning.relaxations import relaxation_options
from nasseg.space.relaxation import RelaxationOptions
from tests.jobs.tiny import DATA, TinySpace

CPU = Hardware.of(torch.device("cpu"), cores=2)
SPEED = Speed(image_scale=0.5, full_step_seconds=0.4, proxy_step_seconds=0.02, forward_seconds=0.1)
SETTLED: dict[str, Any] = {"finalists": 2, "seeds": 2, "image_scale": 0.5}


def plan(
    budget: str,
    hardware: Hardware = CPU,
    speed: Speed = SPEED,
    *,
    size: tuple[int, int] = (160, 320),
    train_images: int = 256,
    val_images: int = 64,
    references: int = 2,
    **options: Any,
) -> Plan:
    asked = SearchOptions(budget=budget, **options)
    images = {"size": size, "train_images": train_images, "val_images": val_images}
    return derive_plan(asked, speed, hardware, references=references, **images)


def test_a_budget_of_trials_has_no_clock() -> None:
    slow = Speed(image_scale=0.5, full_step_seconds=40, proxy_step_seconds=2, forward_seconds=10)
    found = plan("40trials")
    assert found == plan("40trials", speed=slow)
    assert (found.candidates, found.proxy_share) == (40, 1.0)
    assert (found.image_scale, found.rungs, found.full_steps, found.finalists, found.seeds) == (1, (60, 180), 200, 2, 2)
    assert plan("40trials", size=(360, 480)).image_scale == 0.5


PASS = 8 * 0.1
"""Seconds that scoring a whole network takes."""


def time_for_candidates(workers: int, full_steps: int, total: float = 600.0, features: bool = True) -> float:
    """Compute, for `SPEED`, two references, two finalists and two seeds, what all workers have for candidates."""
    contention = 1.15 if workers > 1 else 1.0
    run = contention * (full_steps * 0.4 + PASS + 0.7)
    storing = contention * (4 * 256 + 64) / 8 * 0.1 / workers
    begin = 20 + (run + storing if features else 0)
    beside = min(workers, 4) if features else 0
    # A round of fresh seeds follows the others, or two if there is one worker.
    rounds = math.ceil((8 - beside) / workers) + math.ceil(2 / workers)
    final = rounds * run + max(1.0, math.sqrt(2 * math.log(workers))) * 0.1 * run * math.sqrt(rounds)
    return workers * (0.98 * total - final - begin) - beside * max(0.0, 20 + run - begin)


def tried_in_time(first: int, seconds: float) -> float:
    """Compute how many are tried in so much time of all workers: both references climb, of others one in three."""
    scoring = 8 * 0.02 / 3 + 0.7
    references = 2 * (3 * first * 0.02 + 2 * scoring)
    each = (first + 2 * first / 3) * 0.02 + 4 / 3 * scoring
    return 2 + (seconds - references) / each


def longest_rung(seconds: float, candidates: float) -> int:
    """Find the longest first rung at which so many are tried."""
    return max(first for first in range(20, 301) if tried_in_time(first, seconds) >= candidates)


def test_ten_minutes_by_hand() -> None:
    found = plan("10min", **SETTLED)
    usable = 0.95 * 600 - 20
    # Four rounds of two jobs side by side train four networks with two seeds each, a fifth two fresh seeds.
    full_steps = int((0.5 * usable / (1.15 * 5) - PASS) / 0.4)
    assert found.full_steps == full_steps == 117
    assert found.prepare_steps is None, "nobody waits while the first reference is trained"
    # One worker tries 45 before the final, two are to try half as many again.
    alone = time_for_candidates(1, plan("10min", workers(1), **SETTLED).full_steps)
    by_one = tried_in_time(longest_rung(alone, 45), alone)
    assert found.rungs[0] == longest_rung(time_for_candidates(2, full_steps) / 1.15, by_one * 2**0.6)
    assert found.rungs[1] == 3 * found.rungs[0]
    assert found.candidates is None
    assert (found.proxy_recipe.steps, found.full_recipe.steps) == (found.rungs[1], full_steps)
    assert found.proxy_recipe.crop == found.full_recipe.crop == (80, 160)
    run = 1.15 * (full_steps * 0.4 + PASS + 0.7)
    final = 4 * run + math.sqrt(2 * math.log(2)) * 0.1 * run * 2
    assert found.proxy_share == pytest.approx(1 - 0.02 - final / 600, abs=1e-3)


WHOLE = SPEED.model_copy(update={"proxy_step_seconds": None})
"""The speed where trials train whole networks."""


def test_ten_minutes_of_whole_networks_by_hand() -> None:
    found = plan("10min", speed=WHOLE, **SETTLED)
    assert found.rungs == (117,)  # no longer than the final's runs
    each = 117 * 0.4 + PASS + 0.7
    seconds = time_for_candidates(2, 117, features=False)
    # What is left after the last round is too short for another.
    assert found.expected_candidates == 2 + int((seconds / 1.15 - 2 * each) / each) == 9


def test_an_hour_of_whole_networks_by_hand() -> None:
    found = plan("1h", speed=WHOLE, **SETTLED)
    assert found.rungs == (120, 360)
    seconds = time_for_candidates(2, found.full_steps, 3600.0, features=False)
    # The references go to the top rung, of others one in three.
    references = 2 * (360 * 0.4 + 2 * (PASS + 0.7))
    each = (120 + 240 / 3) * 0.4 + 4 / 3 * (PASS + 0.7)
    in_time = 2 + int((seconds / 1.15 - references) / each)
    run = 1.15 * (found.full_steps * 0.4 + PASS + 0.7)
    left = 0.02 * 3600 + math.sqrt(2 * math.log(2)) * 0.1 * run * 5**0.5
    late = 2 * int(left / (1.15 * (120 * 0.4 + PASS + 0.7)))
    assert late == 4
    assert found.expected_candidates == in_time + late


@pytest.mark.parametrize(("apart", "runs"), [(False, 9), (True, 10)])
def test_a_first_run_that_is_none_of_the_final_s_saves_no_round(apart: bool, runs: int) -> None:
    counts: dict[str, Any] = {"workers": 1, "references": 2, "finalists": 2, "seeds": 2, "needs_features": True}
    seconds = {"total_seconds": 600.0, "starting_seconds": 20.0, "run_seconds": 28.0, "preparing_seconds": 28.0}
    timeline = Timeline(apart=apart, **seconds, **counts)
    assert timeline.rounds == runs
    # The first run takes its time in any case.
    final = runs * 28 + 2.8 * math.sqrt(runs)
    assert timeline.candidate_seconds == pytest.approx(0.98 * 600 - final - 20 - 28)


def test_images_are_scaled_down_until_as_many_are_new_as_are_references() -> None:
    asked: dict[str, Any] = {"speed": WHOLE, "finalists": 2, "seeds": 2, "references": 7}
    at = {scale: plan("25min", image_scale=scale, **asked).expected_candidates or 0 for scale in IMAGE_SCALES}
    assert at[0.75] < 14 <= at[0.5]
    assert plan("25min", **asked).image_scale == 0.5
    assert plan("25min", **{**asked, "speed": SPEED}).image_scale == 0.75  # features are small in any case


@pytest.mark.parametrize(("budget", "share"), [("10min", 0.06), ("1h", 0.025)])
def test_short_runs_are_so_short_that_workers_hardly_wait_at_the_end(budget: str, share: float) -> None:
    total = Budget.parse(budget).wall_seconds(64, 0)
    for references, count in itertools.product((2, 7), (4, 16, 64)):
        found = plan(budget, workers(count), WHOLE, references=references)
        at = WHOLE.at(found.image_scale)
        assert found.rungs[0] >= 120
        assert 1.15 * (found.rungs[0] * at.full_step_seconds + 8 * at.forward_seconds + 0.7) <= share * total
    # What is given is kept, and images are scaled down for runs that are too long otherwise.
    given = {scale: plan(budget, workers(64), WHOLE, image_scale=scale).rungs[0] for scale in (0.5, 0.25)}
    assert given[0.25] > given[0.5] >= 120
    assert plan(budget, workers(64), WHOLE, rungs="400").rungs == (400,)


def test_no_short_run_of_a_whole_network_is_longer_than_those_of_the_final() -> None:
    for full_steps, rungs in ((200, (60, 180)), (180, (60, 180)), (179, (60,)), (30, (30,))):
        assert plan("40trials", speed=WHOLE, full_steps=full_steps).rungs == rungs
    for full_steps in (10, 40, 100, 200):
        assert plan("10min", speed=WHOLE, **SETTLED, full_steps=full_steps).rungs[-1] <= full_steps
    assert plan("10min", speed=WHOLE, **SETTLED, full_steps=15, rungs=(7, 70)).rungs == (7, 70)
    assert plan("40trials", full_steps=15).rungs == (60, 180)  # heads on stored features are another matter


def test_a_plan_expects_fewer_candidates_where_references_take_their_time() -> None:
    found = plan("10min", **SETTLED)
    first = found.rungs[0]
    in_time = int(tried_in_time(first, time_for_candidates(2, 117) / 1.15))
    assert in_time == 68
    run = 1.15 * (117 * 0.4 + PASS + 0.7)
    left = 0.02 * 600 + math.sqrt(2 * math.log(2)) * 0.1 * run * 2
    late = 2 * int(left / (1.15 * (first * 0.02 + 8 * 0.02 / 3 + 0.7)))
    assert found.expected_candidates == in_time + late
    assert plan("40trials").expected_candidates is None


def workers(count: int) -> Hardware:
    return Hardware(device="cpu", cores=count, gpus=0, workers=count, threads=1)


@pytest.mark.parametrize("budget", ["10min", "1h", "8h"])
@pytest.mark.parametrize("speed", [SPEED, WHOLE], ids=["features", "whole"])
def test_more_workers_never_expect_fewer_candidates(speed: Speed, budget: str) -> None:
    for references in (2, 7):
        counts = [*range(1, 33), 48, 64, 65, 96, 128, 256]
        expected = [plan(budget, workers(n), speed, references=references).expected_candidates or 0 for n in counts]
        assert expected == sorted(expected)


def test_the_first_reference_is_trained_more_shortly_where_many_workers_wait() -> None:
    asked: dict[str, Any] = {"finalists": 2, "seeds": 2, "image_scale": 0.5}
    found = [plan("8h", workers(count), **asked).prepare_steps for count in (1, 4, 5, 8, 64)]
    # Four workers train the references' other seeds; the others wait for at most a hundredth of the time of all.
    expected = [int((288 * count / (count - 5) / 1.15 - PASS - 0.7) / 0.4) for count in (8, 64)]
    assert found == [None, None, None, *expected]
    assert plan("8h", workers(64), WHOLE, **asked).prepare_steps is None
    # Where that would be too short to give useful features, the reference is trained like a finalist.
    assert plan("1h", workers(64), **asked).prepare_steps is None


def test_more_hours_buy_more_finalists_seeds_and_rungs() -> None:
    found = [plan(budget) for budget in ("30min", "5h", "20h")]
    assert [(p.finalists, p.seeds, len(p.rungs)) for p in found] == [(2, 2, 2), (5, 2, 3), (10, 3, 3)]


def test_given_dials_are_taken_and_the_rest_follows_from_them() -> None:
    dials = {"rungs": (7, 70), "full_steps": 33, "finalists": 4, "seeds": 1, "image_scale": 0.3}
    for budget in ("10min", "3trials"):
        found = plan(budget, **dials)
        assert {name: getattr(found, name) for name in dials} == dials
        assert (found.proxy_recipe.steps, found.full_recipe.steps) == (70, 33)
        assert found.full_recipe.crop == search_crop((160, 320), 0.3)
    long, short = plan("10min", **SETTLED, full_steps=200), plan("10min", **SETTLED, full_steps=20)
    assert long.proxy_share < short.proxy_share
    assert long.rungs[0] < short.rungs[0]
    assert plan("10min", rungs=None, full_steps=None) == plan("10min")


GPU = Hardware(device="cuda", cores=16, gpus=1, workers=4, threads=4, gpus_per_trial=0.25)
MACHINES = {
    "cpu": (CPU, SPEED.model_copy(update={"relax_step_seconds": 1.5})),
    "cuda": (
        GPU,
        Speed(
            image_scale=0.5,
            full_step_seconds=0.12,
            proxy_step_seconds=0.015,
            forward_seconds=0.03,
            relax_step_seconds=0.5,
        ),
    ),
}
IMAGES: dict[str, Any] = {
    "cpu": {"size": (160, 320), "train_images": 256, "val_images": 64, "references": 2},
    "cuda": {"size": (1024, 2048), "train_images": 2975, "val_images": 500, "references": 1},
}
# machine, strategy, budget; image scale, rungs, full steps, finalists, seeds, proxy share; relaxations, steps, share
GOLDEN = [
    ("cpu", "trials", "40trials", 1.0, (60, 180), 200, 2, 2, 1.0, 0, 0, 1.0),
    ("cpu", "trials", "90s", 0.25, (20, 60), 54, 2, 2, 0.639, 0, 0, 1.0),
    ("cpu", "trials", "15min", 0.5, (196, 588), 179, 2, 2, 0.584, 0, 0, 1.0),
    ("cpu", "trials", "3h", 1.0, (300, 900, 2700), 345, 5, 2, 0.547, 0, 0, 1.0),
    ("cpu", "trials", "8cpu-h", 1.0, (300, 900, 2700), 461, 5, 2, 0.547, 0, 0, 1.0),
    ("cpu", "trials", "20h", 1.0, (300, 900, 2700), 975, 10, 3, 0.518, 0, 0, 1.0),
    ("cpu", "gradient", "40trials", 1.0, (60, 180), 200, 2, 2, 1.0, 2, 400, 1.0),
    ("cpu", "gradient", "90s", 0.25, (20, 60), 54, 2, 2, 0.639, 2, 43, 0.479),
    ("cpu", "gradient", "15min", 0.5, (124, 372), 179, 2, 2, 0.584, 2, 160, 0.354),
    ("cpu", "gradient", "3h", 1.0, (300, 900, 2700), 345, 5, 2, 0.547, 2, 504, 0.305),
    ("cpu", "gradient", "8cpu-h", 1.0, (300, 900, 2700), 461, 5, 2, 0.547, 2, 673, 0.305),
    ("cpu", "gradient", "20h", 1.0, (300, 900, 2700), 975, 10, 3, 0.518, 2, 3200, 0.256),
    ("cuda", "trials", "40trials", 0.5, (60, 180), 200, 2, 2, 1.0, 0, 0, 1.0),
    ("cuda", "trials", "30min", 1.0, (300, 900), 374, 2, 2, 0.717, 0, 0, 1.0),
    ("cuda", "trials", "8gpu-h", 1.0, (300, 900, 2700), 6183, 5, 2, 0.466, 0, 0, 1.0),
    ("cuda", "trials", "200gpu-h", 1.0, (300, 900, 2700), 18593, 10, 3, 0.845, 0, 0, 1.0),
    ("cuda", "gradient", "40trials", 0.5, (60, 180), 200, 2, 2, 1.0, 4, 400, 1.0),
    ("cuda", "gradient", "30min", 1.0, (148, 444), 374, 2, 2, 0.717, 4, 313, 0.417),
    ("cuda", "gradient", "8gpu-h", 1.0, (300, 900, 2700), 6183, 5, 2, 0.466, 4, 3215, 0.273),
    ("cuda", "gradient", "200gpu-h", 1.0, (300, 900, 2700), 18593, 10, 3, 0.845, 4, 18593, 0.24),
]


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: "-".join(row[:3]))
def test_plans_are_those_that_searches_were_measured_with(row: tuple[Any, ...]) -> None:
    machine, strategy, budget, *expected = row
    hardware, speed = MACHINES[machine]
    found = derive_plan(SearchOptions(budget=budget, strategy=strategy), speed, hardware, **IMAGES[machine])
    final = [found.finalists, found.seeds, found.proxy_share]
    relaxing = [found.relaxations, found.relax_steps, pytest.approx(found.relax_share)]
    assert expected == [found.image_scale, found.rungs, found.full_steps, *final, *relaxing]


minutes = st.floats(0.5, 6000)
speeds = st.builds(
    lambda full, proxy, forward: Speed(
        image_scale=0.5, full_step_seconds=full, proxy_step_seconds=full * proxy, forward_seconds=full * forward
    ),
    st.floats(0.002, 20),
    st.floats(0.01, 1),
    st.floats(0.1, 0.6),
)
machines = st.builds(
    lambda device, cores, gpus: Hardware(
        device=device,
        cores=cores,
        gpus=gpus if device == "cuda" else 0,
        workers=4 * gpus if device == "cuda" else cores,
        threads=1,
        gpus_per_trial=0.25 if device == "cuda" else 0.0,
    ),
    st.sampled_from(["cpu", "cuda"]),
    st.integers(1, 64),
    st.integers(1, 8),
)
images = st.integers(1, 3000)


def has_whole_final(found: Plan, speed: Speed, hardware: Hardware, minutes: float, train: int, val: int) -> bool:
    """Whether there is time for all rounds; else the final has fewer, so that candidates have their share."""
    at, batch = speed.at(found.image_scale), found.full_recipe.batch_size
    run_seconds = found.full_steps * at.full_step_seconds + val / batch * at.forward_seconds
    storing_seconds = (found.views * train + val) / batch * at.forward_seconds
    rounds = math.ceil((found.finalists + 2) * found.seeds / hardware.workers) + 2
    contention = 1.15 if hardware.workers > 1 else 1.0
    needed_seconds = contention * ((1 + rounds) * run_seconds + storing_seconds)
    return needed_seconds <= (0.95 - LEAST_PROXY_SHARE) * 60 * minutes


@given(minutes, speeds, machines, images, images)
def test_every_plan_is_valid_and_ends_in_time(
    amount: float, speed: Speed, hardware: Hardware, train: int, val: int
) -> None:
    found = plan(f"{amount:f}min", hardware, speed, train_images=train, val_images=val)
    batch = found.full_recipe.batch_size
    assert found.image_scale in IMAGE_SCALES
    assert 20 <= found.rungs[0] <= 300
    assert list(found.rungs) == [found.rungs[0] * 3**i for i in range(len(found.rungs))]
    assert 10 <= found.full_steps <= max(1000, 100 * train // batch)
    assert LEAST_PROXY_SHARE <= found.proxy_share < 1
    at = speed.at(found.image_scale)
    full_seconds = found.full_steps * at.full_step_seconds + val / batch * at.forward_seconds
    trainings = (found.finalists + 2) * found.seeds
    contention = 1.15 if hardware.workers > 1 else 1.0
    full = contention * math.ceil(trainings / hardware.workers) * full_seconds
    if found.full_steps > 10:
        assert full <= 0.5 * 60 * amount
    if has_whole_final(found, speed, hardware, amount, train, val) and found.full_steps > 10:
        assert found.proxy_share * 60 * amount + full - contention * full_seconds <= 60 * amount
    assert found.prepare_steps is None or 120 <= found.prepare_steps < found.full_steps


@given(st.floats(1, 600), st.floats(1, 3), speeds)
def test_a_larger_budget_never_trains_for_less(amount: float, factor: float, speed: Speed) -> None:
    less, more = (plan(f"{value:.3f}min", speed=speed, **SETTLED) for value in (amount, amount * factor))
    assert more.full_steps >= less.full_steps
    if has_whole_final(less, speed, CPU, amount, 256, 64):
        assert more.rungs[-1] >= less.rungs[-1]


@given(st.floats(1, 59), st.floats(1, 59), speeds)
def test_a_larger_budget_never_sees_smaller_images(a: float, b: float, speed: Speed) -> None:
    less, more = (plan(f"{value:.3f}min", speed=speed) for value in sorted((a, b)))
    assert more.image_scale >= less.image_scale


def test_hours_of_devices_are_shared_out() -> None:
    assert plan("8cpu-h") == plan("4h")
    gpus = Hardware(device="cuda", cores=16, gpus=4, workers=16, threads=1, gpus_per_trial=0.25)
    assert plan("8gpu-h", gpus) == plan("2h", gpus)
    assert plan("8gpu-h", gpus).full_recipe.batch_size == 16
    with pytest.raises(ValueError, match="needs a GPU"):
        plan("8gpu-h")


def test_a_cpu_has_a_worker_a_core() -> None:
    cpu = torch.device("cpu")
    assert cores() >= 1
    assert (CPU.workers, CPU.threads, CPU.gpus, CPU.gpus_per_trial) == (2, 1, 0, 0.0)
    assert (Hardware.of(cpu, 8, 2).workers, Hardware.of(cpu, 8, 2).threads) == (2, 4)
    assert (Hardware.of(cpu, 2, 3).workers, Hardware.of(cpu, 2, 3).threads) == (3, 1)
    with pytest.raises(ValueError, match=r"gpus_per_trial is 0\.5, but the device cpu has 0 GPUs"):
        Hardware.of(cpu, 2, gpus_per_trial=0.5)


@pytest.mark.parametrize(
    ("gpus", "concurrency", "share", "expected"),
    [
        (1, None, None, (4, 0.25)),
        (2, None, None, (8, 0.25)),
        (1, None, 0.5, (2, 0.5)),
        (1, 8, None, (8, 0.125)),
        (2, 1, None, (1, 1.0)),
        (1, 2, 0.25, (2, 0.25)),
        (1, 8, 0.5, (2, 0.5)),
    ],
)
def test_jobs_share_gpus(
    monkeypatch: pytest.MonkeyPatch,
    gpus: int,
    concurrency: int | None,
    share: float | None,
    expected: tuple[int, float],
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    found = Hardware.of(torch.device("cuda"), 16, concurrency, share)
    assert (found.workers, found.gpus_per_trial) == expected
    assert found.threads == max(1, 16 // found.workers)
    assert found.workers * found.gpus_per_trial <= gpus
    assert Hardware.of(torch.device("cuda:0"), 16).gpus == 1
    with pytest.raises(ValueError, match=f"has {gpus} GPUs"):
        Hardware.of(torch.device("cuda"), 16, None, gpus + 1)


def test_time_goes_with_the_number_of_pixels() -> None:
    whole = SPEED.at(1.0)
    assert (whole.full_step_seconds, whole.proxy_step_seconds, whole.forward_seconds) == (1.6, 0.08, 0.4)
    assert SPEED.at(0.5) == SPEED
    some = SPEED.model_copy(
        update={"overheads": {"full_step_seconds": 0.3, "reading_seconds": 0.2}, "reading_seconds": 0.2}
    )
    assert some.at(1.0).full_step_seconds == pytest.approx(0.3 + 4 * 0.1)
    assert (some.at(1.0).reading_seconds, some.at(1.0).forward_seconds) == (0.2, 0.4)
    again = some.reading(0.5)
    assert (again.full_step_seconds, again.forward_seconds) == (0.5, pytest.approx(0.2))


def test_images_that_memory_keeps_are_read_once() -> None:
    reads = SPEED.model_copy(update={"reading_seconds": 0.3, "overheads": {"reading_seconds": 0.3}})
    kept, plain = plan("10min", speed=reads, **SETTLED), plan("10min", **SETTLED)
    assert kept.full_steps == plain.full_steps
    once = (256 + 64) / 8 * 0.3
    alone, together = (
        time_for_candidates(1, plan("10min", workers(1), **SETTLED).full_steps),
        time_for_candidates(2, 117),
    )
    by_one = tried_in_time(longest_rung(alone - once, 45), alone - once)
    assert kept.rungs[0] == longest_rung((together - 2 * once) / 1.15, by_one * 2**0.6) < plain.rungs[0]
    size = (2000, 4000)  # at half size 8 MB each, of which 134 fit
    read, plain = (plan("60min", speed=speed, **SETTLED, size=size) for speed in (reads, SPEED))
    share = 1 - (1 << 30) / (256 * 4 * 1000 * 2000)
    ratio = (0.4 + share * 0.3) / 0.4
    assert plain.full_steps / read.full_steps == pytest.approx(ratio, rel=0.02)


def test_crops_are_in_multiples_of_sixteen() -> None:
    assert search_crop((160, 320), 1) == (160, 320)
    assert search_crop((360, 480), 0.5) == (176, 240)
    assert search_crop((1024, 2048), 0.375) == (384, 768)
    assert search_crop((40, 40), 0.25) == (32, 32)


SIZE = (64, 96)
"""Height and width of the images of `DATA`, in pixels."""

PLAIN = TinySpace().architecture(TinySpace().references()["plain"], 3)


def test_speed_is_measured_on_the_data() -> None:
    found = measure_speed(TinySpace(), [PLAIN], open_dataset(DATA).split("train"), SIZE, 1.0, torch.device("cpu"), 1)
    assert found.image_scale == 1
    assert found.proxy_step_seconds is not None
    # Which is longest is not asserted: a pause of the process may fall into any of them.
    assert min(found.proxy_step_seconds, found.full_step_seconds, found.forward_seconds, found.reading_seconds) > 0
    assert found.overheads["reading_seconds"] == found.reading_seconds
    assert all(0 <= overhead <= getattr(found, name) for name, overhead in found.overheads.items())
    assert found.relax_step_seconds == 0
    assert found.feature_bytes == 2 * 12 * 8 * 12, "12 channels at stride 8, in half precision"
    images, logits = (8 * channels * 64 * 96 * 4 for channels in (3, 3))
    assert images + 2 * logits < found.job_bytes < 10 * images


# --- by gradient -----------------------------------------------------------------------------------------------------

RELAXED = SPEED.model_copy(update={"relax_step_seconds": 1.5})


def by_gradient(budget: str, hardware: Hardware = CPU, speed: Speed = RELAXED, **options: Any) -> Plan:
    return plan(budget, hardware, speed, strategy="gradient", cost_weight=-0.07, **options)


def test_seven_minutes_by_gradient_by_hand() -> None:
    found, trials = by_gradient("7min", **SETTLED), plan("7min", **SETTLED)
    assert (found.relaxations, found.full_steps) == (2, trials.full_steps)
    rest = time_for_candidates(2, found.full_steps, 420) / 2
    step = 1.15 * 0.75 * 1.5  # side by side, and half as long where only the weights are updated
    assert found.relax_steps == int(0.5 * rest / step)
    left = rest - found.relax_steps * step
    assert found.rungs[0] == pytest.approx(longest_rung(2 * left / 1.15, 45 * 2**0.6), abs=1)
    assert found.rungs[1] == 3 * found.rungs[0]
    recipe = found.relax_recipe
    assert recipe is not None
    assert found.full_recipe.crop == (80, 160)
    assert (recipe.steps, recipe.crop, recipe.batch_size, recipe.amp) == (found.relax_steps, (64, 80), 2, False)
    # Half of the 70 steps update the architecture.
    assert recipe.architecture_learning_rate == pytest.approx(3e-3 * (15000 / 35) ** 0.5)
    assert (recipe.scale, recipe.colour, recipe.cost_weight) == ((0.5, 2.0), 0.3, -0.07)


def test_a_search_by_trials_has_no_relaxation() -> None:
    found = plan("10min")
    assert (found.relaxations, found.relax_steps, found.relax_recipe) == (0, 0, None)


def test_a_budget_of_trials_bounds_relaxations() -> None:
    assert [by_gradient(f"{n}trials").relaxations for n in (1, 2, 3, 4, 40)] == [1, 1, 1, 2, 2]
    assert by_gradient("40trials").relax_steps == 400


@pytest.mark.parametrize(("workers", "relaxations"), [(1, 2), (2, 2), (3, 3), (4, 4), (16, 4)])
def test_as_many_relaxations_as_workers_from_two_to_four(workers: int, relaxations: int) -> None:
    hardware = CPU.model_copy(update={"workers": workers})
    assert by_gradient("2h", hardware).relaxations == relaxations
    assert by_gradient("20min", hardware).relaxations == min(workers, 4)


def test_dials_of_a_relaxation_are_taken() -> None:
    dials = {"relax_steps": 33, "relaxations": 5, "partial_channels": 4}
    for budget in ("10min", "40trials"):
        found = by_gradient(budget, **dials)
        assert (found.relax_steps, found.relaxations) == (33, 5)
        assert found.relax_recipe is not None
        assert found.relax_recipe.options.partial_channels == 4
    short, long = by_gradient("10min", **SETTLED, relax_steps=10), by_gradient("10min", **SETTLED, relax_steps=200)
    assert short.rungs[0] > long.rungs[0]


@pytest.mark.parametrize(
    ("device", "asked", "expected"),
    [("cpu", None, False), ("cuda", None, True), ("cpu", True, True), ("cuda", False, False)],
)
def test_activations_are_computed_again_on_gpus_unless_said_otherwise(
    device: str, asked: bool | None, expected: bool
) -> None:
    options = relaxation_options(SearchOptions(strategy="gradient", checkpoint_activations=asked), torch.device(device))
    assert options.checkpoint_activations is expected


@given(minutes, speeds, machines, images, images, st.floats(0.5, 20))
def test_every_plan_by_gradient_is_valid_and_ends_in_time(
    amount: float, speed: Speed, hardware: Hardware, train: int, val: int, relax: float
) -> None:
    speed = speed.model_copy(update={"relax_step_seconds": relax * speed.full_step_seconds})
    found = plan(f"{amount:f}min", hardware, speed, train_images=train, val_images=val, strategy="gradient")
    assert found.relax_steps >= 10
    at, batch = speed.at(found.image_scale), found.full_recipe.batch_size
    full_seconds = found.full_steps * at.full_step_seconds + val / batch * at.forward_seconds
    full = 1.15 * math.ceil((found.finalists + 2) * found.seeds / hardware.workers) * full_seconds
    step = 1.15 * math.ceil(found.relaxations / hardware.workers) * 0.75 * at.relax_step_seconds
    if found.relax_steps > 10 and found.full_steps > 10:
        assert full + found.relax_steps * step <= 60 * amount


def test_the_speed_of_a_relaxation_is_measured() -> None:
    options = RelaxationOptions()
    images = open_dataset(DATA).split("train")
    found = measure_speed(TinySpace(), [PLAIN], images, SIZE, 1.0, torch.device("cpu"), 1, options)
    assert found.relax_step_seconds > found.proxy_step_seconds
