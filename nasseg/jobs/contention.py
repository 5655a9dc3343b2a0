"""How many times longer a training step takes beside other jobs on the same machine.

    python -m nasseg.jobs.contention NETWORK.json HEIGHT WIDTH DEVICE THREADS

trains that network until nobody reads its output any more; `measure_contention` runs it as the other jobs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from nasseg.data import Batch
from nasseg.graph import Architecture, load, save
from nasseg.jobs.speed import rehearsal, step_seconds
from nasseg.planning.machine import batch_size
from nasseg.train.trainer import Trainer


def measure_contention(
    architecture: Architecture, crop: tuple[int, int], device: torch.device, threads: int, jobs: int
) -> float:
    """Time training steps of a network alone, then beside `jobs` - 1 processes that train it too; return the ratio.

    It is 1 at least. Raises `ValueError` if one of the others fails, as where memory does not suffice for all.
    """
    if jobs == 1:
        return 1.0
    torch.set_num_threads(threads)
    trainer, batches = _rehearsal(architecture, crop, device)
    trainer.run(batches, 1)
    alone_seconds = step_seconds(trainer, batches)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        network = Path(folder) / "network.json"
        save(architecture, network)
        command = [sys.executable, "-m", __name__, str(network), *map(str, (*crop, device, threads))]
        others = [running.enter_context(_running(command)) for _ in range(jobs - 1)]
        for other in others:
            assert other.stdout is not None
            if not other.stdout.readline():
                raise ValueError(f"one of {jobs} jobs on {device} fails beside the others; lower --concurrency")
        beside_seconds = step_seconds(trainer, batches)
    return max(1.0, beside_seconds / alone_seconds)


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def _rehearsal(
    architecture: Architecture, crop: tuple[int, int], device: torch.device
) -> tuple[Trainer, Iterator[Batch]]:
    return rehearsal(architecture, {"image": torch.zeros(batch_size(device), 3, *crop)}, crop, device)


def _train_until_alone(network: str, height: str, width: str, device: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    trainer, batches = _rehearsal(load(Path(network)), (int(height), int(width)), torch.device(device))
    while True:
        trainer.run(batches, trainer.step + 1)
        sys.stdout.write("trained a step\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _train_until_alone(*sys.argv[1:])
