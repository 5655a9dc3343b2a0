"""A search at a limit, of a space whose dial scales its networks to it."""

import threading
from pathlib import Path

import pytest

from nasseg.experiment.experiment import Experiment
from nasseg.jobs.context import Context
from nasseg.planning.candidates import FIRST_FRESH_SEED
from tests.jobs.tiny import Head, ScaledTinySpace, tiny_config

SPACE = "tests.jobs.tiny:ScaledTinySpace"
AT_LIMIT = {1: 16, 3: 10, 5: 4}
"""Channels by kernel: with a kernel of 1, even 16 are below the limit, which the others nearly reach."""


def begin(folder: Path) -> Experiment:
    config = tiny_config("4trials", SPACE, candidates=4).model_copy(update={"max_params": "2.4K"})
    folder.mkdir()
    config.save(folder)
    return Experiment(config, Context.open(config, folder))


def outcomes(search: Experiment) -> list[object]:
    return [(trial.candidate, dict(trial.proxy), dict(trial.full)) for trial in search.results.trials]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    search = begin(tmp_path_factory.mktemp("scaled") / "run")
    search.run(threading.Event(), lambda search: None)
    return search


def test_references_and_candidates_are_scaled_to_the_limit(done: Experiment) -> None:
    space = ScaledTinySpace()
    choices = {trial.candidate.label or "": space.parse(trial.candidate.choice) for trial in done.results.trials}
    expected = {kernel: Head(kernel=kernel, channels=channels) for kernel, channels in AT_LIMIT.items()}
    assert choices == {"plain-below": expected[1], "wide-scaled": expected[5], "": expected[3]}
    params = {trial.choice.kernel: trial.costs.params or 0 for trial in done.results.trials}
    assert params[1] < 0.92 * 2400
    assert all(0.92 * 2400 <= params[kernel] <= 2400 for kernel in (3, 5))


def test_costs_count_relative_to_the_scaled_reference(done: Experiment) -> None:
    reference = done.results.references["plain-below"]
    assert done.objective.reference_cost == reference.costs.madds
    assert {seed for seed in reference.full if seed < FIRST_FRESH_SEED} == {0, 1}


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_stopped_search_trains_the_same_scaled_networks(done: Experiment, tmp_path: Path, stop_after: int) -> None:
    stop, results = threading.Event(), 0
    search = begin(tmp_path / "run")

    def count(search: Experiment) -> None:
        nonlocal results
        results += not search.planner.in_flight
        if results == stop_after:
            stop.set()

    search.run(stop, count)
    again = Experiment.open(tmp_path / "run", space=SPACE)
    again.run(threading.Event(), lambda search: None)
    assert outcomes(again) == outcomes(done)
