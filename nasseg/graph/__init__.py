"""Architectures as data: build, check, hash, cut, load and save."""

from nasseg.graph.architecture import FORMAT, Architecture, ArchitectureError, Node, PublishedBackbone
from nasseg.graph.builder import Builder
from nasseg.graph.files import load, read_model, save, write_atomically
from nasseg.graph.following import following

__all__ = [
    "FORMAT",
    "Architecture",
    "ArchitectureError",
    "Builder",
    "Node",
    "PublishedBackbone",
    "following",
    "load",
    "read_model",
    "save",
    "write_atomically",
]
