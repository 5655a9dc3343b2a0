"""Weights that trials inherit from earlier ones."""

from __future__ import annotations

import os
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from nasseg.graph import Architecture, write_atomically
from nasseg.graph.identity import digest
from nasseg.network import Network


class WeightStore:
    """A folder of trained nodes' weights, from which later networks with the same nodes start.

    A file holds the parameters and running statistics of one node, under the hash of its name, operator and input
    channels, as in the weight sharing of ENAS (arXiv 1802.03268, section 2). Hashes of all that a node computes
    (`Architecture.node_keys`) would be stricter, but two networks share few of those after their first difference, and
    trials gained nothing from them (`benchmarks/inheritance.py`).

    The first trial that trains a node sets its weights for good, so every trial starts from nodes trained about equally
    long. With the latest weights instead, later trials would look better than earlier ones.

    Any number of processes may read and write at once. If the folder exceeds `limit_bytes`, the least recently used
    files are removed. What a network finds depends on what was saved before: with several workers, on which came first.
    A trial repeated because its result was lost may find its own weights.
    """

    def __init__(self, folder: Path, limit_bytes: int = 2 << 30) -> None:
        if limit_bytes < 1:
            raise ValueError(f"limit_bytes is {limit_bytes}, but must be positive; to keep nothing, use no store")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.limit_bytes = folder, limit_bytes

    def save(self, network: Network) -> None:
        """Keep the weights of each node that has none in the store yet."""
        for file, module in self.files(network).values():
            if not file.exists():
                tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in module.state_dict().items()}
                write_atomically(file, safetensors.torch.save(tensors))
        self._make_room()

    def load_into(self, network: Network) -> set[str]:
        """Load the stored weights of each node; returns the names of the nodes that had some."""
        found = set()
        for name, (file, module) in self.files(network).items():
            try:
                os.utime(file)
                module.load_state_dict(safetensors.torch.load(file.read_bytes()))
            except FileNotFoundError:  # never kept, or just removed by another process
                continue
            except (SafetensorError, RuntimeError):  # cut short by a power failure, or of another node
                file.unlink(missing_ok=True)
                continue
            found.add(name)
        return found

    def keys(self, architecture: Architecture) -> dict[str, str]:
        """Return the key under which each node's weights are stored, by node name."""
        return {
            node.name: digest(
                [node.name, node.op.identity(), [architecture.channels(source) for source in node.inputs]]
            )
            for node in architecture.nodes
        }

    def files(self, network: Network) -> dict[str, tuple[Path, nn.Module]]:
        """Return the file and the module of each node that has weights, by name."""
        return {
            name: (self.folder / f"{key}.safetensors", module)
            for name, key in self.keys(network.architecture).items()
            if (module := network.get_submodule(name)).state_dict()
        }

    def _make_room(self) -> None:
        files = []
        for file in self.folder.glob("*.safetensors"):
            try:
                status = file.stat()
            except FileNotFoundError:
                continue
            files.append((status.st_mtime_ns, status.st_size, file))
        excess = sum(size for _, size, _ in files) - self.limit_bytes
        for _, size, file in sorted(files):
            if excess <= 0:
                break
            file.unlink(missing_ok=True)
            excess -= size
