"""Replayed steps are those that would be computed, and whatever stands in their way, steps are computed."""

import logging
import math
from collections.abc import Callable
from functools import partial
from itertools import islice

import pytest
import torch

from nasseg.train.ahead.replays import Replays
from nasseg.train.recipe import Recipe
from nasseg.train.trainer import Trainer

from ..tiny import IGNORED, Batch, batches, tiny_network
from .fake_graph import FakeGraph

RECIPE = Recipe(steps=10, learning_rate=0.1, head_multiplier=2, warmup_steps=1, ema_decay=0.9, nesterov=True)


@pytest.fixture
def graph() -> FakeGraph:
    return FakeGraph()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, graph: FakeGraph) -> Callable[..., Trainer]:
    """Makes a trainer that runs four steps ahead, and replays with at least as many steps left."""

    def make(least: int = 0) -> Trainer:
        monkeypatch.setattr("nasseg.train.trainer.LEAST_REPLAYS", least)
        with monkeypatch.context() as patch:
            patch.setattr("nasseg.train.trainer.steps_ahead", lambda device: 4)
            patch.setattr("nasseg.train.trainer.Replays", partial(Replays, record=graph.record))
            trainer = computed()
        graph.parameters = list(trainer.network.parameters())
        return trainer

    return make


def computed() -> Trainer:
    """A trainer that computes each step."""
    return Trainer(tiny_network(), RECIPE, 10, torch.device("cpu"), 0, IGNORED)


def assert_same(one: Trainer, other: Trainer) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_all_steps_but_the_first_are_replayed(made: Callable[..., Trainer], graph: FakeGraph) -> None:
    """The first makes the optimizer's state. A replay more is compared with what it stands for."""
    run, expected = made(), computed()
    logs = [each.run(batches(), until_step=8) for each in (run, expected)]
    assert logs[0].losses == logs[1].losses
    assert_same(run, expected)
    assert (graph.recordings, graph.replays) == (1, 7 + 1)


def test_what_is_recorded_is_forgotten_before_a_scoring(made: Callable[..., Trainer], graph: FakeGraph) -> None:
    """It holds memory. Too few steps do not pay for another recording."""
    run, expected = made(least=4), computed()
    for stop in (4, 8, 10):
        run.run(batches(start_step=run.step), until_step=stop)
        expected.run(batches(start_step=expected.step), until_step=stop)
        run.ema_network()
    assert (graph.recordings, graph.replays) == (2, (1 + 3) + (1 + 4))
    assert_same(run, expected)


def test_batches_of_other_shapes_are_computed(made: Callable[..., Trainer], graph: FakeGraph) -> None:
    run, expected = made(), computed()
    given = list(islice(batches(), 8))
    given[3] = Batch({"image": given[3].inputs["image"][..., :12]}, given[3].masks[..., :12])
    given[5] = Batch({"image": given[5].inputs["image"][:1]}, given[5].masks[:1])
    for each in (run, expected):
        each.run(given, until_step=8)
    assert_same(run, expected)
    assert (graph.recordings, graph.replays) == (1, 5 + 1)


@pytest.mark.parametrize("wrong", range(4))
def test_a_loss_that_is_not_finite_is_undone(wrong: int, made: Callable[..., Trainer], graph: FakeGraph) -> None:
    run, healthy = made(), computed()
    spoilt = list(islice(batches(), 8))
    spoilt[3 + wrong] = Batch({"image": spoilt[0].inputs["image"] * math.nan}, spoilt[3 + wrong].masks)
    log = run.run(spoilt, until_step=8)
    healthy.run(batches(), until_step=3 + wrong)
    assert (log.status, run.step) == ("nonfinite", 3 + wrong)
    assert graph.replays > 3 + wrong
    torch.testing.assert_close(list(run.network.parameters()), list(healthy.network.parameters()), rtol=0, atol=0)
    states = [each.state_dict()["optimizer"]["state"] for each in (run, healthy)]
    torch.testing.assert_close(*states, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("error", "warning"),
    [
        (RuntimeError("operation not permitted when stream is capturing"), "RuntimeError: operation not permitted"),
        (torch.OutOfMemoryError("no memory"), None),
    ],
)
def test_what_cannot_be_recorded_is_computed(
    error: Exception,
    warning: str | None,
    made: Callable[..., Trainer],
    graph: FakeGraph,
    caplog: pytest.LogCaptureFixture,
) -> None:
    graph.error = error
    run, expected = made(), computed()
    with caplog.at_level(logging.WARNING):
        for each in (run, expected):
            each.run(batches(), until_step=10)
    assert_same(run, expected)
    assert (graph.recordings, graph.replays) == (1, 0), "it is not tried twice"
    assert [record.getMessage() for record in caplog.records] == [] if warning is None else warning in caplog.text


def test_replays_that_deviate_are_not_used(
    made: Callable[..., Trainer], graph: FakeGraph, caplog: pytest.LogCaptureFixture
) -> None:
    graph.factor = 1.1
    run, expected = made(), computed()
    for each in (run, expected):
        each.run(batches(), until_step=10)
    assert_same(run, expected)
    assert graph.replays == 1
    assert "steps are not replayed on cpu: ArithmeticError: the gradient deviates by 0." in caplog.text


@pytest.mark.gpu
def test_a_gpu_replays_steps_as_it_computes_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    losses = []
    for least in (0, 1000):
        monkeypatch.setattr("nasseg.train.trainer.LEAST_REPLAYS", least)
        run = Trainer(tiny_network(), RECIPE, 10, torch.device("cuda"), 0, IGNORED)
        losses.append(run.run(batches(), until_step=10).losses)
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=0.01, atol=0.01)
    assert not caplog.records
