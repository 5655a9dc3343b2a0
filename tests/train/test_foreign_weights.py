"""Models and checkpoints from someone else: no more memory is taken than the file has bytes."""

import io
import json
import pickle
import resource
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from nasseg.foreign import MAX_HEADER_BYTES
from nasseg.graph import save
from nasseg.network import Network
from nasseg.train.checkpoint import load_checkpoint, restore, save_checkpoint
from nasseg.train.model import load_model, save_model
from nasseg.train.recipe import Recipe
from nasseg.train.trainer import Trainer
from nasseg.train.weights.loading import read_weights

from .made_up import provenance, small_architecture


def with_architecture(path: Path, change: Any) -> None:
    """Change the architecture in a model's header."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    architecture = json.loads(header["__metadata__"]["nasseg.architecture"])
    change(architecture)
    header["__metadata__"]["nasseg.architecture"] = json.dumps(architecture)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + length :])


def test_a_small_model_cannot_ask_for_gigabytes(tmp_path: Path) -> None:
    """The first would have 756 MB of weights, within the limit, but not in the file; the second 3 GB."""
    for kernel, line in ((31, "backbone.conv.0.weight is missing or has another shape"), (63, "must have at most")):
        path = tmp_path / "model.safetensors"
        save_model(path, Network(small_architecture()), provenance())

        def widen(architecture: dict[str, Any], kernel: int = kernel) -> None:
            conv, *_ = (node for node in architecture["nodes"] if node["name"] == "backbone.conv")
            conv["op"].update(out_channels=65_536, kernel=kernel, stride=256)

        with_architecture(path, widen)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ValueError, match=r"small|model\.safetensors") as caught:
            load_model(path)
        assert line in str(caught.value)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_a_model_cannot_ask_for_maps_beyond_any_use(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, Network(small_architecture()), provenance())

    def enlarge(architecture: dict[str, Any]) -> None:
        architecture["nodes"].append(
            {"name": "head.huge", "op": {"op": "resize", "factor": 1000}, "inputs": architecture["outputs"]}
        )
        architecture["outputs"] = ["head.huge"]

    with_architecture(path, enlarge)
    with pytest.raises(ValueError, match=r"node 'head\.huge' makes a map of 13×512000×1024000, but maps must"):
        load_model(path)


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1])
def test_a_header_is_not_read_beyond_its_limit(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    for read in (load_model, read_weights):
        with pytest.raises(ValueError, match=rf"has a header of {length:,} bytes, but must have at most"):
            read(path)


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", {"a": torch.zeros(1_000_000)})
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as old,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert (tmp_path / "b.pt").stat().st_size < 20_000
    with pytest.raises(ValueError, match=r"b\.pt: not a checkpoint, or a damaged one"):
        load_checkpoint(tmp_path / "b.pt")


def test_a_tensor_cannot_claim_more_than_the_archive_holds(tmp_path: Path) -> None:
    """An older PyTorch would hand out what lies behind it in memory."""
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(100)}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(tmp_path / "a.pt", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                assert content.count(b"Kd") >= 2  # BININT1 100: the storage's length and the tensor's
                content = content.replace(b"Kd", b"J" + struct.pack("<i", 50_000_000))
            new.writestr(name, content)
    with pytest.raises(ValueError, match=r"a\.pt: not a checkpoint, or a damaged one"):
        load_checkpoint(tmp_path / "a.pt")


def test_weights_must_be_plain_tensors(tmp_path: Path) -> None:
    strange = {"expanded": torch.zeros(1).expand(2**40), "sparse": torch.eye(3).to_sparse()}
    for name, tensor in strange.items():
        torch.save({name: tensor}, tmp_path / "weights.pt")
        with pytest.raises(ValueError, match=rf"weights\.pt: '{name}' is no plain tensor|not a checkpoint"):
            read_weights(tmp_path / "weights.pt")


@pytest.mark.parametrize("change", [{"step": -1}, {"step": 10**12}, {"network": {}}, {"optimizer": 3}, {"step": None}])
def test_a_state_of_something_else_is_told(tmp_path: Path, change: dict[str, object]) -> None:
    recipe = Recipe(steps=4, amp=False)

    def trainer() -> Trainer:
        return Trainer(Network(small_architecture()), recipe, 4, torch.device("cpu"), 0, 255)

    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {**trainer().state_dict(), **change})
    with pytest.raises(ValueError, match=rf"^{path} is damaged \(.*\); remove it to train from the beginning$"):
        restore(trainer(), path)
    save_checkpoint(path, pickle.loads(pickle.dumps(trainer().state_dict())))
    restore(trainer(), path)


def test_a_point_of_a_space_asks_for_no_more_than_others(tmp_path: Path) -> None:
    from nasseg import plugins

    save(small_architecture().replace(space="dpc:filters=1000000000", choice={}), tmp_path / "best.json")
    with pytest.raises(ValueError, match=r"filters is 1000000000, but must be less than or equal to 65536"):
        plugins.space("dpc:filters=1000000000", where="best.json")
