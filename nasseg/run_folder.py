"""Run folders: new for every run, gone again where a run is refused, with the resolved options in `config.yaml`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from nasseg.errors import one_line
from nasseg.graph import write_atomically

CONFIG_FILE = "config.yaml"
Config = TypeVar("Config", bound=BaseModel)


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


def save_config(config: BaseModel, folder: Path) -> None:
    """Write the resolved options of a run into its folder."""
    write_atomically(folder / CONFIG_FILE, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def load_config(kind: type[Config], folder: Path, run: str) -> Config:
    """The options in a run's folder; raises `ValueError` where they are missing or off. `run` is what it ran."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ValueError(f"{folder} holds no {CONFIG_FILE}; give the folder of a {run}")
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        detail = one_line(error) if isinstance(error, ValidationError) else str(error).splitlines()[0]
        raise ValueError(f"{path}: {detail}") from None
