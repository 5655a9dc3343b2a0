"""Checkpoints: whole training states, and weights alone. A file is there whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from torch import nn


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` once it is complete; after an error `path` is as it was.

    Raises `OSError` where it cannot be written, as on a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers, strings, lists and dicts, such as `Trainer.state_dict()`.

    Raises `OSError` where it cannot be written; the file that was there before is then still whole.
    """
    with atomic_file(path) as file:
        torch.save(state, file)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a state that `save_checkpoint` wrote. Nothing in the file is executed."""
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


def save_weights(path: Path, network: nn.Module) -> None:
    """Write the network's parameters and buffers, by their names, as safetensors.

    Raises `OSError` where the file cannot be written.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_file(path) as file:
        file.write(safetensors.torch.save(tensors))
