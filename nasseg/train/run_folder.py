"""Run folders: new for every run, and gone again where a run is refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def check_new(folder: Path) -> None:
    """Raises `ValueError` where there is something at `folder` already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists already; continue it with --resume, or name another folder with --out")


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make a run folder that the block fills; if the block fails, nothing of it stays. Raises as `check_new` does."""
    check_new(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder)
        for parent in made[1:]:
            with suppress(OSError):  # another run may have its folder there by now
                parent.rmdir()
        raise
