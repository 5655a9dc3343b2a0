import pytest
import torch

from nasseg.cost.latency import Latency, default_dtype, device_name, measure_latency, measure_latency_afresh
from nasseg.cost.timing import StopRule
from nasseg.graph import Architecture, Builder
from nasseg.ops import conv1x1, logits1x1

CPU = torch.device("cpu")
QUICK = StopRule(fewest_rounds=6, most_rounds=6)


def small(channels: int = 4, in_channels: int = 3) -> Architecture:
    g = Builder("small")
    return g.build(g.add("logits", logits1x1(2), g.add("conv", conv1x1(channels), g.input(in_channels))))


def test_the_conditions_stand_beside_it() -> None:
    networks = {"colour": small().network(), "grey": small(in_channels=1).network()}
    measured = measure_latency(networks, (8, 9), CPU, batch=2, dtype="bfloat16", stop=QUICK)
    assert list(measured) == ["colour", "grey"]
    one = measured["colour"]
    assert one.low_ms is not None
    assert one.high_ms is not None
    assert 0 < one.low_ms <= one.median_ms <= one.high_ms <= one.p95_ms
    assert one.fps == pytest.approx(2000 / one.median_ms)
    assert (one.runs, one.batch, one.size, one.dtype, one.folded) == (6, 2, (8, 9), "bfloat16", True)
    assert (one.device, one.threads, one.torch) == (device_name(CPU), torch.get_num_threads(), torch.__version__)
    assert (one.backend, one.backend_version, one.peak_memory_gib) == ("eager", torch.__version__, None)
    assert one.relative_interval == pytest.approx(max(one.high_ms / one.median_ms - 1, 1 - one.low_ms / one.median_ms))
    assert Latency.model_validate_json(one.model_dump_json()) == one


def test_results_of_several_processes_are_pooled() -> None:
    one = measure_latency({"small": small().network()}, (8, 9), CPU, stop=QUICK)["small"]
    measured = []
    for median_ms, load in ((9.0, 0.1), (11.0, 0.3), (10.0, 0.2)):
        times = {"p95_ms": median_ms + 2, "low_ms": median_ms - 0.1, "high_ms": median_ms + 0.2, "drift": 0.01}
        found = {"median_ms": median_ms, "settled": median_ms != 11, "others_load": load}
        measured.append(one.model_copy(update=times | found))
    pooled = Latency.pooled(measured)
    assert (pooled.median_ms, pooled.p95_ms, pooled.low_ms, pooled.high_ms) == (10, 12, 8.9, 11.2)
    assert (pooled.runs, pooled.processes, pooled.settled, pooled.others_load) == (18, 3, False, 0.3)
    assert pooled.drift == pytest.approx(0.1)  # the processes' own is less
    assert Latency.pooled([one]) == one


def test_a_fresh_process_has_as_many_threads_as_this_one() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        measured = measure_latency_afresh({"small": small()}, (8, 9), CPU, batch=2, stop=QUICK)
    finally:
        torch.set_num_threads(threads)
    assert (measured["small"].threads, measured["small"].batch, measured["small"].runs) == (threads + 1, 2, 6)


def test_older_files_are_read() -> None:
    old = {"median_ms": 30.0, "p95_ms": 31.0, "runs": 20, "size": [160, 320], "batch": 1}
    old |= {"device": "x86_64", "dtype": "float32", "threads": 2, "torch": "2.13"}
    read = Latency.model_validate(old)
    assert (read.median_ms, read.backend, read.folded, read.settled) == (30.0, "eager", False, None)
    assert read.relative_interval is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown backend 'onyx'; known: eager, compile, onnxruntime"):
        measure_latency({}, (8, 8), CPU, backend="onyx")


def test_half_precision_is_for_gpus() -> None:
    assert default_dtype(CPU) == "float32"
    assert default_dtype(torch.device("cuda")) == "float16"


def test_a_processor_has_a_name() -> None:
    assert device_name(CPU) not in {"", "cpu"}


@pytest.mark.gpu
def test_on_cuda_it_is_half_precision_with_its_memory() -> None:
    one = measure_latency({"small": small().network()}, (64, 64), torch.device("cuda"), stop=QUICK)["small"]
    assert one.dtype == "float16"
    assert one.device == torch.cuda.get_device_name()
    assert one.peak_memory_gib is not None
    assert one.peak_memory_gib > 0
