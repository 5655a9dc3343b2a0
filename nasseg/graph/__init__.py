"""Architectures as data: build, check, hash, cut, load and save."""

from nasseg.graph.architecture import FORMAT, Architecture, ArchitectureError, Node, PublishedBackbone
from nasseg.graph.builder import Builder
from nasseg.graph.files import load, read_model, save, write_atomically

__all__ = [
    "FORMAT",
    "Architecture",
    "ArchitectureError",
    "Builder",
    "Node",
    "PublishedBackbone",
    "load",
    "read_model",
    "save",
    "write_atomically",
]
