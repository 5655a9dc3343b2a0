import platform
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from nasseg.cost import latency
from nasseg.cost.latency import Latency, device_name, measure_latency

CPU = torch.device("cpu")


class Noting(nn.Module):
    """Notes its calls and the clock's steps that they take."""

    def __init__(self, name: str, calls: list[tuple[str, tuple[int, ...]]]) -> None:
        super().__init__()
        self.name, self.calls = name, calls

    def forward(self, image: Tensor) -> Tensor:
        assert torch.is_inference_mode_enabled()
        assert image.is_contiguous(memory_format=torch.channels_last)
        assert not self.training
        self.calls.append((self.name, tuple(image.shape)))
        return image


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which the n-th run, warm-up included, takes n milliseconds."""

    def ticks() -> Iterator[float]:
        now, run = 0.0, 0
        while True:
            run += 1
            yield now
            now += run / 1000
            yield now

    times = ticks()
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(times))


@pytest.mark.usefixtures("clock")
def test_median_and_p95_of_the_runs_after_warm_up() -> None:
    measured = measure_latency({"a": Noting("a", [])}, (4, 6), CPU, runs=21, warmup=4)["a"]
    assert measured.median_ms == pytest.approx(15)  # of 5 to 25
    assert measured.p95_ms == pytest.approx(24)
    assert measured.runs == 21


def test_networks_take_turns() -> None:
    calls: list[tuple[str, tuple[int, ...]]] = []
    measure_latency({name: Noting(name, calls) for name in "ab"}, (4, 6), CPU, batch=2, runs=2, warmup=1)
    assert calls == [("a", (2, 3, 4, 6)), ("b", (2, 3, 4, 6))] * 3


def test_the_conditions_stand_beside_it() -> None:
    measured = measure_latency({"a": nn.Conv2d(3, 4, 3)}, (8, 9), CPU, runs=2, warmup=0)["a"]
    assert 0 < measured.median_ms <= measured.p95_ms
    assert (measured.device, measured.dtype, measured.batch, measured.size) == (device_name(CPU), "float32", 1, (8, 9))
    assert (measured.threads, measured.torch) == (torch.get_num_threads(), torch.__version__)
    assert Latency.model_validate_json(measured.model_dump_json()) == measured


def test_a_processor_has_a_name() -> None:
    assert device_name(CPU) in {platform.processor(), platform.machine()}
    assert device_name(CPU)
