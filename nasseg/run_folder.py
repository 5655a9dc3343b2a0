"""Run folders, one per search or retraining: the names of their files, and how they are made, refused and read."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from reprlib import repr as short_repr
from typing import Annotated, TypeVar

import yaml
from filelock import FileLock, Timeout
from pydantic import AfterValidator, BaseModel, ValidationError

from nasseg.errors import one_line
from nasseg.foreign import read_yaml
from nasseg.graph import write_atomically

CONFIG_FILE = "config.yaml"
MODEL_FILE = "model.safetensors"
TENSORBOARD_FOLDER = "tensorboard"
LOCK_FILE, OWNER_FILE = ".lock", ".owner"
"""Of the process that runs in a folder; the lock ends with it, however it ends."""

STUDY_FILE = "study.journal"
SPENT_FILE = "spent_seconds.json"
BEST_FILE = "best.json"
FRONT_FOLDER = "pareto"
TRIALS_FILE = "trials.csv"
REPORT_FILE = "report.html"
LOG_FILE = "log.txt"
LATENCY_TABLE_FILE = "latency.json"
"""A copy of the table given to the search, so that the folder is complete."""
CHECKPOINTS_FOLDER = "checkpoints"
FEATURES_FOLDER = "features"
INHERITED_WEIGHTS_FOLDER = "weights"
RELAXATION_FOLDER = "relaxation"
"""Snapshots and drawings of relaxations, by seed."""

ARCHITECTURE_FILE = "architecture.json"
CHECKPOINT_FILE = "checkpoint.pt"
METRICS_FILE = "metrics.json"
HISTORY_FILE = "validations.json"
BEST_MODEL_FILE = "best.safetensors"
"""Of a retraining, the state that scored highest on the validation split; `MODEL_FILE` holds the last one."""

Config = TypeVar("Config", bound=BaseModel)


def file_name(name: str) -> str:
    """Return `name`, which may come from someone else's file, if it can name a file of a run folder.

    Raises `ValueError` for anything that could lead out of the folder or that a file system may not take.
    """
    if re.fullmatch(r"(?!\.)[A-Za-z0-9_.-]{1,100}", name) is None:
        raise ValueError(
            f"{short_repr(name)} cannot name a file; use 1 to 100 letters, digits, '_', '-' and '.', with no '.' first"
        )
    return name


FileName = Annotated[str, AfterValidator(file_name)]
"""The type of a field that names files; `file_name` checks its values."""


def check_new(folder: Path) -> None:
    """Raise `ValueError` if there is something at `folder` already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists already; continue it with --resume, or name another folder with --out")


def to_resume(folder: Path | None, run: str) -> Path:
    """Return the folder of a run to continue; raises `ValueError` if none is named, or it has none. `run` names it."""
    if folder is None:
        raise ValueError(f"--resume needs --out RUN, the folder of the {run} to continue")
    _check_run(folder, run)
    return folder


def user_cache() -> Path:
    """Return nasseg's folder in the user's cache, as the XDG base directory specification places it."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "nasseg"


def free_disk_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or will be on once it is made."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


def require_disk(folder: Path, needed_bytes: float) -> None:
    """Raise `OSError` as a full disk does if a folder's has fewer free bytes, before anything is half-written."""
    if free_disk_bytes(folder) < needed_bytes:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for {needed_bytes / 2**20:.0f} MiB", str(folder))


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make a run folder for the block to fill, removed if the block fails. Raises as `check_new` does."""
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


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other processes from running in a folder during the block.

    Raises `ValueError` naming the process that runs there already.
    """
    owner = folder / OWNER_FILE
    try:
        lock = FileLock(folder / LOCK_FILE, timeout=0).acquire()
    except Timeout:
        who = owner.read_text(encoding="utf-8") if owner.exists() else "another process"
        raise ValueError(f"{folder} is in use by {who}; stop that first, or wait until it has ended") from None
    with lock:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        try:
            yield
        finally:
            for file in (OWNER_FILE, LOCK_FILE):
                (folder / file).unlink(missing_ok=True)


def save_config(config: BaseModel, folder: Path) -> None:
    """Write the resolved options of a run into its folder."""
    write_atomically(folder / CONFIG_FILE, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def load_config(kind: type[Config], folder: Path, run: str) -> Config:
    """Read the options in a run folder; raises `ValueError` if they are missing or invalid. `run` names its kind."""
    _check_run(folder, run)
    path = folder / CONFIG_FILE
    try:
        return kind.model_validate(read_yaml(path, f"give the folder of a {run}"))
    except ValidationError as error:
        raise ValueError(one_line(error, str(path))) from None


def _check_run(folder: Path, run: str) -> None:
    """Raise `ValueError` if a folder holds no run, or a link by which the run would write elsewhere."""
    if not (folder / CONFIG_FILE).is_file():
        raise ValueError(f"{folder} holds no {CONFIG_FILE}; give the folder of a {run}")
    root = folder.resolve()
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(above) / name
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise ValueError(f"{path} is a link out of the run folder, which runs write only within; remove it")


def architecture_file(path: Path) -> Path:
    """Locate the architecture of a search's or a retraining's folder, or of the model in one; else return `path`.

    Raises `ValueError` for a folder that holds none.
    """
    if not path.is_dir() and path.name != MODEL_FILE:
        return path
    folder = path if path.is_dir() else path.parent
    for name in (BEST_FILE, ARCHITECTURE_FILE):
        if (folder / name).is_file():
            return folder / name
    raise ValueError(
        f"{folder} holds neither {BEST_FILE} nor {ARCHITECTURE_FILE}; give the folder of a search or of a retraining"
    )


def trained_model(folder: Path, key: str, seed: int) -> Path:
    """Locate the model of a candidate that a search trained end to end."""
    return folder / CHECKPOINTS_FOLDER / f"{key}-full{seed}.safetensors"


def prepared_model(folder: Path, key: str) -> Path:
    """Locate the model of a reference that was trained only to give features."""
    return folder / CHECKPOINTS_FOLDER / f"{key}-prepared.safetensors"


def unfinished_training(model: Path) -> Path:
    """Locate the state of the unfinished end-to-end run that will leave this model."""
    return model.with_suffix(".pt")


def proxy_checkpoint(folder: Path, key: str, step: int) -> Path:
    """Locate the state of a candidate at a rung. A job repeated after a kill starts from the same one."""
    return folder / CHECKPOINTS_FOLDER / f"{key}-proxy{step}.pt"


def relaxation_checkpoint(folder: Path, seed: int) -> Path:
    """Locate the training state of a relaxation."""
    return folder / CHECKPOINTS_FOLDER / f"relax{seed}.pt"


def relaxation_snapshot(folder: Path, seed: int) -> Path:
    """Locate a relaxation's latest snapshot, for reports."""
    return folder / RELAXATION_FOLDER / f"seed{seed}.json"
