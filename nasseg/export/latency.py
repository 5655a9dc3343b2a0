"""The latency of exported files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from nasseg.cost.latency import Latency, measure_latency, time_runs
from nasseg.cost.load import OthersLoad
from nasseg.cost.timing import StopRule
from nasseg.data import normalise
from nasseg.export.files import ExportedNetwork, OnnxNetwork, ProgramNetwork
from nasseg.network import Network, Segmenter

CPU = torch.device("cpu")


@torch.inference_mode()
def measure_exported(
    networks: Mapping[str, ExportedNetwork], size: tuple[int, int], stop: StopRule | None = None
) -> dict[str, Latency]:
    """Measure exported files on one image of `size` (height, width), on the processor, each alone.

    Raises `ValueError` if a file does not take images of that size.
    """
    measured: dict[str, Latency] = {}
    for name, network in networks.items():
        network.check_size(size)
        options, load = network.info.options, OthersLoad(CPU)
        run = _run(network, size)
        run()
        backend = "eager" if isinstance(network, ProgramNetwork) else "onnxruntime"
        dtype = "int8" if options.made.int8 else str(options.made.dtype).removeprefix("torch.")
        measured |= time_runs({name: run}, CPU, backend, load, stop, dtype=dtype, batch=1, size=size)
    return measured


def latency_of(segmenter: Segmenter, size: tuple[int, int], device: torch.device) -> Latency:
    """Measure a network or an exported file on one image of `size` (height, width), briefly."""
    if isinstance(segmenter, ExportedNetwork):
        return measure_exported({"": segmenter}, size)[""]
    if not isinstance(segmenter, Network):
        raise TypeError(f"{type(segmenter).__name__} is neither a network nor an exported file")
    return measure_latency({"": segmenter}, size, device)[""]


def measure_exported_afresh(
    files: Mapping[str, Path], size: tuple[int, int], stop: StopRule | None = None
) -> dict[str, Latency]:
    """Call `measure_exported` on ONNX files in a new process, as `measure_latency_afresh` does for networks."""
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
    ) as process:
        return process.submit(_open_and_measure, dict(files), size, stop).result()


def _open_and_measure(files: dict[str, Path], size: tuple[int, int], stop: StopRule | None) -> dict[str, Latency]:
    return measure_exported({name: OnnxNetwork.open(path) for name, path in files.items()}, size, stop)


def _run(network: ExportedNetwork, size: tuple[int, int]) -> Callable[[], object]:
    """Make a call that runs the file on noise; ONNX Runtime's leaves out the copies to and from NumPy."""
    pixels = torch.randint(256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = pixels if network.info.options.normalise else normalise(pixels)
    if not isinstance(network, OnnxNetwork):
        return lambda: network.run(image)
    network.run(image)  # which tells of a file that does not run
    binding = network.session.io_binding()
    binding.bind_cpu_input("image", image.numpy())
    binding.bind_output(network.session.get_outputs()[0].name)
    return lambda: network.session.run_with_iobinding(binding)
