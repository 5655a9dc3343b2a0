"""How many times longer a training step takes beside other jobs on the same machine.

    python -m nasseg.jobs.contention NETWORK.json HEIGHT WIDTH DEVICE THREADS

trains that network until nobody reads its output any more; `measure_contention` runs it as the other jobs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from nasseg.data import Batch
from nasseg.graph import Architecture, load, save
from nasseg.planning.machine import batch_size
from nasseg.train.fit import seeded_network
from nasseg.train.recipes import short
from nasseg.train.trainer import Trainer

STEPS = 4
"""Training steps that are timed, alone and beside others."""


def measure_contention(
    architecture: Architecture, crop: tuple[int, int], device: torch.device, threads: int, jobs: int
) -> float:
    """Time training steps of a network alone, then beside `jobs` - 1 processes that train it too; return the ratio.

    It is 1 at least. Raises `ValueError` if one of the others fails, as where memory does not suffice for all.
    """
    if jobs == 1:
        return 1.0
    torch.set_num_threads(threads)
    training = _steps(architecture, crop, device)
    next(training)
    alone_seconds = _seconds(training)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        network = Path(folder) / "network.json"
        save(architecture, network)
        command = [sys.executable, "-m", __name__, str(network), *map(str, (*crop, device, threads))]
        others = [running.enter_context(_running(command)) for _ in range(jobs - 1)]
        for other in others:
            assert other.stdout is not None
            if not other.stdout.readline():
                raise ValueError(f"one of {jobs} jobs on {device} fails beside the others; lower --concurrency")
        beside_seconds = _seconds(training)
    return max(1.0, beside_seconds / alone_seconds)


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def _steps(architecture: Architecture, crop: tuple[int, int], device: torch.device) -> Iterator[None]:
    """Take a training step on made-up images each time."""
    recipe = short(steps=1, batch_size=batch_size(device))
    trainer = Trainer(seeded_network(architecture, 0), recipe, sys.maxsize, device, 0, 255)
    masks = torch.zeros(recipe.batch_size, *crop, dtype=torch.long)
    batch = Batch({"image": torch.zeros(recipe.batch_size, 3, *crop)}, masks)

    def batches() -> Iterator[Batch]:
        while True:
            yield batch

    for step in range(1, sys.maxsize):
        trainer.run(batches(), step)
        yield


def _seconds(training: Iterator[None]) -> float:
    start = time.perf_counter()
    for _ in range(STEPS):
        next(training)
    return time.perf_counter() - start


def _train_until_alone(network: str, height: str, width: str, device: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    for _ in _steps(load(Path(network)), (int(height), int(width)), torch.device(device)):
        sys.stdout.write("trained a step\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _train_until_alone(*sys.argv[1:])
