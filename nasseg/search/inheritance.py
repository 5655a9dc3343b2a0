"""Weights that trials inherit from earlier ones."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from nasseg.graph import Architecture, write_atomically
from nasseg.network import Network


class WeightStore:
    """A folder of trained nodes' weights, from which later networks with the same nodes start.

    A file holds the weights and the running statistics of one node, under the hash of what the node computes
    (`Architecture.node_keys`). Any number of processes may read and write at once: files are replaced whole, and one
    that another process has just removed was simply not found. When the folder is larger than `limit_bytes`, the files
    that were used least recently go.

    Equal nodes of one network are told apart by their number in order: with the same weights they would have the same
    gradients, and stay one node for ever.

    What a network finds depends on what was saved before it, so with several workers on who was first.
    """

    def __init__(self, folder: Path, limit_bytes: int = 2 << 30) -> None:
        if limit_bytes < 1:
            raise ValueError(f"limit_bytes is {limit_bytes}, but must be positive; to keep nothing, use no store")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.limit_bytes = folder, limit_bytes

    def save(self, network: Network) -> None:
        """Keep the weights of every node, in place of older ones."""
        for name, file in self._files(network.architecture).items():
            state = network.get_submodule(name).state_dict()
            if state:
                tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
                write_atomically(file, safetensors.torch.save(tensors))
        self._make_room()

    def load_into(self, network: Network) -> set[str]:
        """Give each node the weights that are known for it; the names of the nodes that were found."""
        found = set()
        for name, file in self._files(network.architecture).items():
            module = network.get_submodule(name)
            if not module.state_dict():
                continue
            try:
                module.load_state_dict(safetensors.torch.load(file.read_bytes()))
                os.utime(file)
            except FileNotFoundError:
                continue
            except SafetensorError:
                continue
            found.add(name)
        return found

    def keys(self, architecture: Architecture) -> dict[str, str]:
        """What each node's weights are known by."""
        seen: Counter[str] = Counter()
        keys = {}
        for node in architecture.ordered:
            key = architecture.node_keys[node.name]
            keys[node.name] = f"{key}-{seen[key]}" if seen[key] else key
            seen[key] += 1
        return keys

    def _files(self, architecture: Architecture) -> dict[str, Path]:
        return {name: self.folder / f"{key}.safetensors" for name, key in self.keys(architecture).items()}

    def _make_room(self) -> None:
        files = []
        for file in self.folder.glob("*.safetensors"):
            try:
                state = file.stat()
            except FileNotFoundError:
                continue
            files.append((state.st_mtime_ns, state.st_size, file))
        excess = sum(size for _, size, _ in files) - self.limit_bytes
        for _, size, file in sorted(files):
            if excess <= 0:
                break
            file.unlink(missing_ok=True)
            excess -= size
