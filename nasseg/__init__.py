"""nasseg searches for semantic-segmentation networks: `nasseg.search`, `nasseg.load`, `nasseg.baseline`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nasseg import search
from nasseg.threads import limit_spinning

if TYPE_CHECKING:
    from pathlib import Path

    from nasseg.graph import Architecture

__all__ = ["baseline", "load", "search"]

limit_spinning()  # read when torch loads


def load(path: str | Path) -> Architecture:
    """The architecture in a file such as `best.json`; raises `ValueError` with the path of a field that is off."""
    from nasseg.graph import load as load_file

    return load_file(path)


def baseline(name: str, num_classes: int | None = None, **options: Any) -> Architecture:
    """The handcrafted network `name`, as in `baseline("unet", 2, norm="none")`.

    Its logits are for `num_classes` classes, or for as many as its paper's.

    Raises `ValueError` for an unknown name or option, with the known ones.
    """
    from nasseg import plugins

    return plugins.baseline(name, num_classes, **options)
