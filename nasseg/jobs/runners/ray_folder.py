"""The run folder of a search on a Ray cluster: kept on the machine that searches, reached from all."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nasseg.graph import write_atomically
from nasseg.jobs.remote import folder_of_this_machine
from nasseg.run_folder import CONFIG_FILE, OWNER_FILE

_CLEANING_S = 30


class RayRunFolder:
    """A run folder on this machine, for workers anywhere in the cluster that is joined. It can be sent to them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity = hashlib.sha256(str(path).encode() + (path / CONFIG_FILE).read_bytes()).hexdigest()[:16]
        self._owner, self._node = _owner(path), _node()
        self._keeper = ray.remote(_Keeper).options(num_cpus=0, scheduling_strategy=_on(self._node)).remote(path)

    def is_here(self) -> bool:
        """Return whether this machine sees it: the one that searches, or one with the same disk."""
        return _node() == self._node or (self._owner is not None and _owner(self.path) == self._owner)

    def fetch(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """Return the content of those files that exist."""
        found: Mapping[str, bytes] = ray.get(self._keeper.fetch.remote(names))
        return found

    def store(self, files: Mapping[str, bytes]) -> None:
        """Write these files, each whole or not at all."""
        ray.get(self._keeper.store.remote(files))

    def clean(self) -> None:
        """Remove what workers left on other machines, as far as these answer."""
        others = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != self._node]
        clean = ray.remote(_clean)
        cleaning = [
            clean.options(num_cpus=0, max_retries=0, scheduling_strategy=_on(node)).remote(self.identity)
            for node in others
        ]
        ray.wait(cleaning, num_returns=len(cleaning), timeout=_CLEANING_S) if cleaning else None


class _Keeper:
    """A process on the machine that searches, which reads and writes the files for workers elsewhere."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fetch(self, names: Sequence[str]) -> dict[str, bytes]:
        paths = {name: self._folder / name for name in names}
        return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}

    def store(self, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            path = self._folder / name
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, content)


def _clean(identity: str) -> None:
    shutil.rmtree(folder_of_this_machine(identity), ignore_errors=True)


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node, soft=False)


def _owner(folder: Path) -> str | None:
    file = folder / OWNER_FILE
    return file.read_text(encoding="utf-8") if file.exists() else None
