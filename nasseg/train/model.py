"""Trained models: one safetensors file with the weights, and the architecture with its provenance in the header."""

from __future__ import annotations

import math
from pathlib import Path

import safetensors.torch
import torch
from pydantic import ValidationError

from nasseg.cost.describe import walk
from nasseg.errors import one_line
from nasseg.foreign import MAX_MAP_VALUES, parse_json
from nasseg.graph import Architecture, write_atomically
from nasseg.network import Network
from nasseg.run_folder import MODEL_FILE
from nasseg.train.checkpoint import load_safetensors, read_header
from nasseg.train.provenance import Provenance

USUAL_SIZE = (512, 1024)
_HEADER = "nasseg.architecture"


def save_model(path: Path, network: Network, provenance: Provenance) -> None:
    """Write weights, architecture and provenance as one file, whole or not at all."""
    architecture = provenance.on(network.architecture)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {_HEADER: architecture.model_dump_json(exclude_none=True)}
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def load_model(path: Path) -> tuple[Network, Provenance]:
    """Load the network (without what only training needs) of a model file, or of a run folder that holds one.

    Raises `ValueError` if there is none, or if it is not a model of nasseg.
    """
    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        hint = "a run folder must hold one" if path.is_dir() else "give a run folder or a model file"
        raise ValueError(f"{file}: no such file; {hint} ({MODEL_FILE}, written by retrain and search)")
    header = read_header(file, f"give a {MODEL_FILE}").get(_HEADER)
    if header is None:
        raise ValueError(f"{file} holds weights but no architecture; give a {MODEL_FILE} that nasseg wrote")
    try:
        architecture = Architecture.model_validate(parse_json(header))
    except ValidationError as error:
        raise ValueError(one_line(error, str(file))) from None
    except ValueError as error:
        raise ValueError(f"{file}: its architecture {error}; give a {MODEL_FILE} that nasseg wrote") from None
    provenance = Provenance.read(architecture)
    if provenance is None:
        raise ValueError(f"{file} does not say which data it is for; give a {MODEL_FILE} that nasseg wrote")
    _check_maps(file, architecture)
    with torch.device("meta"):  # so that no more is allocated than the file holds
        network = Network(architecture.inference())
    weights = load_safetensors(file, f"give a {MODEL_FILE}")
    for name, tensor in network.state_dict().items():
        if name not in weights or weights[name].shape != tensor.shape:
            raise ValueError(f"{file}: {name} is missing or has another shape than in its architecture; retrain it")
    own = {name: weights[name].to(tensor.dtype) for name, tensor in network.state_dict().items()}
    network.load_state_dict(own, assign=True)
    return network.eval(), provenance


def _check_maps(file: Path, architecture: Architecture) -> None:
    """Raise `ValueError` for a network that makes larger maps of an image than any of use does."""
    for node, _, cost in walk(architecture.inference(), USUAL_SIZE):
        if math.prod(cost.shape) > MAX_MAP_VALUES:
            shape = "×".join(map(str, cost.shape))
            raise ValueError(
                f"{file}: node {node.name!r} makes a map of {shape}, but maps must have at most {MAX_MAP_VALUES:,} "
                f"values for images of {USUAL_SIZE[0]}×{USUAL_SIZE[1]}; give another model"
            )
