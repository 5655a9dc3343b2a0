"""Files of tensors: checkpoints of training states, each there whole or not at all, and weights from elsewhere.

Nothing in a file is executed, and no more memory is taken than it has bytes.
"""

import io
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nasseg.foreign import MAX_HEADER_BYTES, damaged
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
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a checkpoint that a run has written")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged one
            mapped = _is_plain_archive(path)
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged pickle raises anything, KeyError included
        raise ValueError(f"{path}: not a checkpoint, or a damaged one; give one that a run has written") from error
    return state


class Restorable(Protocol):
    """What continues from a state, such as a `Trainer`."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""


def restore(into: Restorable, path: Path, device: torch.device | str = "cpu") -> None:
    """Continue from the state in a checkpoint; raises `ValueError` as `load_checkpoint` does, or if it is another's."""
    state = load_checkpoint(path, device)
    with damaged(path, "remove it to train from the beginning"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a damaged state
        into.load_state_dict(state)


def load_safetensors(path: Path, fix: str) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file; raises a `ValueError` that ends in `fix` if it is none."""
    read_header(path, fix)
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, RuntimeError, TypeError, KeyError, OSError) as error:
        raise ValueError(f"{path} is a damaged safetensors file ({str(error)[:100]}); {fix}") from None


def read_header(path: Path, fix: str) -> dict[str, str]:
    """Read the metadata of a safetensors file; raises a `ValueError` that ends in `fix` if it is none."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; {fix}")
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
        if length > MAX_HEADER_BYTES:
            raise ValueError(
                f"{path} has a header of {length:,} bytes, but must have at most {MAX_HEADER_BYTES:,}; {fix}"
            )
        with safe_open(path, "pt") as opened:
            return opened.metadata() or {}
    except (SafetensorError, struct.error) as error:
        raise ValueError(f"{path} is not a safetensors file ({str(error)[:100]}); {fix}") from None


def _is_plain_archive(path: Path) -> bool:
    """Tell an archive from the older format; raises `ValueError` for one whose content is compressed.

    Tensors mapped from an archive lie within it, whatever sizes it claims.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\3\4":
            return False
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("its content is compressed")
    return True
