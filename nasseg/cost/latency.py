"""Measuring latency: the median of timed runs in inference form, with the conditions of the measurement."""

from __future__ import annotations

import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from nasseg.cost.backends import BACKENDS, DTYPES, Run, choose_backend
from nasseg.cost.inference import inference_form, random_inputs
from nasseg.cost.load import OthersLoad
from nasseg.cost.timing import StopRule, clock_for, time_interleaved
from nasseg.graph import Architecture
from nasseg.network import Network

BRIEF = StopRule(least_seconds=0.5, limit_seconds=10.0)
"""For the end of a search, which must not wait long."""
THOROUGH = StopRule(least_seconds=2.0, limit_seconds=60.0)
"""For results to publish: seconds at least, as a machine's speed changes from second to second."""


class Latency(BaseModel):
    """Milliseconds per forward pass in inference, and the conditions of the measurement; `size` is (height, width).

    `low_ms` to `high_ms` is the 95 % confidence interval of the median; `settled` says whether it became as tight as
    requested. `drift` is how far the median moved during the measurement, as a share. `others_load` is the share of the
    device that other programs used. `processes` is how many measured it, one after the other. Values that older files
    lack are `None`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    median_ms: float
    p95_ms: float
    low_ms: float | None = None
    high_ms: float | None = None
    settled: bool | None = None
    drift: float | None = None
    runs: int
    device: str
    dtype: str
    batch: int
    size: tuple[int, int]
    threads: int
    torch: str
    backend: str = "eager"
    backend_version: str | None = None
    folded: bool = False
    peak_memory_gib: float | None = None
    others_load: float | None = None
    processes: int = 1

    @property
    def fps(self) -> float:
        """Images per second."""
        return self.batch * 1000 / self.median_ms

    @property
    def relative_interval(self) -> float | None:
        """The further of the interval's two ends from the median, as a share of the median."""
        if self.low_ms is None or self.high_ms is None:
            return None
        return max(self.high_ms - self.median_ms, self.median_ms - self.low_ms) / self.median_ms

    @classmethod
    def pooled(cls, latencies: Sequence[Latency]) -> Latency:
        """Pool the measurements of several processes: the median of their medians, the widest interval.

        The distance of a process's median from the pooled one counts as drift.
        """
        median_ms = statistics.median(one.median_ms for one in latencies)
        moved = [abs(one.median_ms / median_ms - 1) for one in latencies]
        known = {
            name: [value for value in (getattr(one, name) for one in latencies) if value is not None]
            for name in ("low_ms", "high_ms", "drift", "others_load", "peak_memory_gib")
        }
        return latencies[0].model_copy(
            update={
                "median_ms": median_ms,
                "p95_ms": statistics.median(one.p95_ms for one in latencies),
                "low_ms": min(known["low_ms"], default=None),
                "high_ms": max(known["high_ms"], default=None),
                "settled": all(one.settled for one in latencies),
                "drift": max([*known["drift"], *moved]),
                "others_load": max(known["others_load"], default=None),
                "peak_memory_gib": max(known["peak_memory_gib"], default=None),
                "runs": sum(one.runs for one in latencies),
                "processes": sum(one.processes for one in latencies),
            }
        )


def measure_latency_afresh(
    architectures: Mapping[str, Architecture], size: tuple[int, int], device: torch.device, **options: Any
) -> dict[str, Latency]:
    """Call `measure_latency` on untrained networks in a new process, with this one's number of threads.

    Where a process finds its memory can decide how fast it is, so results to publish are pooled from several. The
    process imports the main module: a script must call this under `if __name__ == "__main__"`.
    """
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
    ) as process:
        return process.submit(_build_and_measure, architectures, size, device, options).result()


def _build_and_measure(
    architectures: Mapping[str, Architecture], size: tuple[int, int], device: torch.device, options: Mapping[str, Any]
) -> dict[str, Latency]:
    torch.manual_seed(0)
    networks = {name: architecture.network() for name, architecture in architectures.items()}
    return measure_latency(networks, size, device, **options)


def measure_latency(
    networks: Mapping[str, Network],
    size: tuple[int, int],
    device: torch.device,
    *,
    batch: int = 1,
    dtype: str | None = None,
    backend: str = "eager",
    stop: StopRule | None = None,
) -> dict[str, Latency]:
    """Measure the latency of each network, by name, on `batch` images of `size` (height, width), in inference form.

    The networks take turns, so that drift of the machine's speed affects all alike. `dtype` defaults to float16 on CUDA
    and float32 elsewhere. Every backend uses PyTorch's number of threads. Nothing else should use the device meanwhile;
    what other programs do is left out only where one thread computes (`clock_for`). Raises `ValueError` if backend,
    device and dtype do not fit.
    """
    dtype = dtype or default_dtype(device)
    chosen = choose_backend(backend, device, dtype)
    runs: dict[str, Run] = {}
    peaks_gib: dict[str, float | None] = {}
    with torch.inference_mode(), torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        load = OthersLoad(device)
        for name, network in networks.items():
            architecture = network.architecture
            shapes = [(batch, architecture.channels(source), *size) for source in architecture.inputs]
            inputs = random_inputs(shapes, device, DTYPES[dtype])
            with PeakMemory(device) as peak:
                runs[name] = chosen.prepare(inference_form(network, inputs), inputs)
                runs[name]()
            peaks_gib[name] = peak.gib if chosen.packages == ("torch",) else None
        conditions = {"dtype": dtype, "batch": batch, "size": size}
        made = time_runs(runs, device, backend, load, stop, **conditions)
    return {name: latency.model_copy(update={"peak_memory_gib": peaks_gib[name]}) for name, latency in made.items()}


def time_runs(
    runs: Mapping[str, Run],
    device: torch.device,
    backend: str,
    load: OthersLoad,
    stop: StopRule | None = None,
    **conditions: Any,
) -> dict[str, Latency]:
    """Time calls by name, in turn, since `load` began; `conditions` are a `Latency`'s dtype, batch and size."""
    clock = clock_for(device, backend, torch.get_num_threads())
    timings = time_interleaved(runs, device, stop=stop or BRIEF, clock=clock)
    return {
        name: Latency(
            **timing.model_dump(exclude={"calls_per_run"}),
            **conditions,
            device=device_name(device),
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            backend=backend,
            backend_version=BACKENDS[backend].version,
            folded=True,
            others_load=load.share,
        )
        for name, timing in timings.items()
    }


def default_dtype(device: torch.device) -> str:
    """Return the number format that a network is shipped in: half precision on CUDA."""
    return "float16" if device.type == "cuda" else "float32"


class PeakMemory:
    """A context that measures the peak GPU memory above that at the start, as `gib`; `None` on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.gib: float | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._start = torch.cuda.memory_allocated(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.gib = (torch.cuda.max_memory_allocated(self.device) - self._start) / 2**30


def device_name(device: torch.device) -> str:
    """Name the model of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text() if cpuinfo.exists() else "", re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()
