"""Measuring latency: the median of timed runs after warm-up, with the conditions beside it."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn


class Latency(BaseModel):
    """Milliseconds per forward pass in inference, and what they were measured under; `size` is (height, width)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    median_ms: float
    p95_ms: float
    runs: int
    device: str
    dtype: str
    batch: int
    size: tuple[int, int]
    threads: int
    torch: str


@torch.inference_mode()
def measure_latency(
    networks: Mapping[str, nn.Module],
    size: tuple[int, int],
    device: torch.device,
    *,
    batch: int = 1,
    runs: int = 20,
    warmup: int = 3,
) -> dict[str, Latency]:
    """The latency of each network by name, on (batch, 3, *size) images in float32, channels last.

    Runs are interleaved, so that a drift of the machine's speed hits all networks alike. Nothing else should use the
    device meanwhile.
    """
    image = torch.randn(batch, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    for network in networks.values():
        network.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    times_ms: dict[str, list[float]] = {name: [] for name in networks}
    for run in range(warmup + runs):
        for name, network in networks.items():
            elapsed = _time_ms(network, image, device)
            if run >= warmup:
                times_ms[name].append(elapsed)
    return {
        name: Latency(
            median_ms=statistics.median(times),
            p95_ms=_percentile(times, 0.95),
            runs=runs,
            device=device_name(device),
            dtype="float32",
            batch=batch,
            size=size,
            threads=torch.get_num_threads(),
            torch=torch.__version__,
        )
        for name, times in times_ms.items()
    }


def _time_ms(network: nn.Module, image: torch.Tensor, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    network(image)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) * 1000


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def device_name(device: torch.device) -> str:
    """The model of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()
