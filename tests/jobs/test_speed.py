import time
from functools import partial

import pytest
import torch

from nasseg import plugins
from nasseg.jobs.speed import STEPS, rehearsal, step_seconds
from nasseg.train.ahead.replays import Replays
from tests.train.ahead.fake_graph import FakeGraph


@pytest.mark.parametrize(("ahead", "first"), [(1, 1), (20, 2)])
def test_steps_are_timed_as_a_search_takes_them(monkeypatch: pytest.MonkeyPatch, ahead: int, first: int) -> None:
    """On a device that replays steps, recording one is no part of the time."""
    graph = FakeGraph()
    monkeypatch.setattr("nasseg.train.trainer.Replays", partial(Replays, record=graph.record))
    for module in ("nasseg.jobs.speed", "nasseg.train.trainer"):
        monkeypatch.setattr(f"{module}.steps_ahead", lambda device: ahead)
    network = plugins.baseline("lraspp:width=0.25", 3)
    trainer, batches = rehearsal(network, {"image": torch.zeros(8, 3, 32, 32)}, (32, 32), torch.device("cpu"))
    graph.parameters = list(trainer.network.parameters())
    trainer.run(batches, 1)
    seen, clock = list[tuple[int, int]](), time.perf_counter

    def noted() -> float:
        seen.append((trainer.step, graph.recordings))
        return clock()

    monkeypatch.setattr("nasseg.jobs.speed.time.perf_counter", noted)
    assert step_seconds(trainer, batches) > 0
    recordings = int(ahead > 1)
    # Between the first reading and the last, the trainer reads the clock as it begins and ends.
    assert (seen[-4], seen[-1]) == ((first, recordings), (first + STEPS, recordings))
