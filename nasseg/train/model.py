"""Trained models: one safetensors file with the weights, and the architecture with its provenance in the header."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from nasseg.errors import one_line
from nasseg.graph import Architecture, write_atomically
from nasseg.network import Network
from nasseg.run_folder import MODEL_FILE
from nasseg.train.provenance import Provenance

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
    try:
        with safe_open(file, "pt") as opened:
            header = (opened.metadata() or {}).get(_HEADER)
    except SafetensorError as error:
        raise ValueError(f"{file} is not a safetensors file ({error}); give a {MODEL_FILE}") from None
    if header is None:
        raise ValueError(f"{file} holds weights but no architecture; give a {MODEL_FILE} that nasseg wrote")
    try:
        architecture = Architecture.model_validate_json(header)
    except ValidationError as error:
        raise ValueError(one_line(error, str(file))) from None
    provenance = Provenance.read(architecture)
    if provenance is None:
        raise ValueError(f"{file} does not say which data it is for; give a {MODEL_FILE} that nasseg wrote")
    network = Network(architecture.inference())
    weights = safetensors.torch.load_file(file)
    for name, tensor in network.state_dict().items():
        if name not in weights or weights[name].shape != tensor.shape:
            raise ValueError(f"{file}: {name} is missing or has another shape than in its architecture; retrain it")
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    return network.eval(), provenance
