"""Checkpoints of training states. A file is there whole or not at all."""

import io
from pathlib import Path
from typing import Any

import torch

from nasseg.graph import write_atomically


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers, strings, lists and dicts, such as `Trainer.state_dict()`.

    Raises `OSError` if it cannot be written; a file that was there before is then still whole.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a state that `save_checkpoint` wrote. Nothing in the file is executed.

    Raises `ValueError` if the file is missing or damaged, or holds anything but plain data.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; give a checkpoint that a run has written") from None
    except Exception as error:  # a damaged pickle raises anything, KeyError included
        raise ValueError(f"{path}: not a checkpoint, or a damaged one; give one that a run has written") from error
    return state
