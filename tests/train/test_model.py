from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from nasseg.network import Network
from nasseg.train.fit import seeded_network
from nasseg.train.model import MODEL_FILE, load_model, save_model

from .made_up import provenance, small_architecture

HEADER = "nasseg.architecture"


@pytest.fixture
def network() -> Network:
    return seeded_network(small_architecture(), 0)


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as opened:
        return dict(opened.metadata())


def test_a_model_comes_back_without_what_training_needs(network: Network, tmp_path: Path) -> None:
    network(torch.rand(2, 3, 32, 64))  # moves the running statistics
    save_model(tmp_path / MODEL_FILE, network, provenance(seed=5))
    for path in (tmp_path, tmp_path / MODEL_FILE):
        loaded, found = load_model(path)
        assert found == provenance(seed=5)
        assert not loaded.training
        assert not any(name.startswith("auxiliary") for name in loaded.state_dict())
        image = torch.rand(1, 3, 33, 47)
        torch.testing.assert_close(loaded(image), network.eval()(image), rtol=0, atol=0)


def test_the_file_opens_as_plain_safetensors(network: Network, tmp_path: Path) -> None:
    save_model(tmp_path / MODEL_FILE, network, provenance())
    torch.testing.assert_close(safetensors.torch.load_file(tmp_path / MODEL_FILE), dict(network.state_dict()))
    assert [path.name for path in tmp_path.iterdir()] == [MODEL_FILE]


def broken(tmp_path: Path, network: Network, kind: str) -> Path:
    path = tmp_path / MODEL_FILE
    save_model(path, network, provenance())
    weights, metadata = safetensors.torch.load_file(path), header(path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
        return path
    if kind == "bare":
        metadata = {}
    elif kind == "homeless":
        metadata[HEADER] = small_architecture().model_dump_json()
    elif kind == "off":
        metadata[HEADER] = metadata[HEADER].replace('"op":"resize"', '"op":"grow"')
    elif kind == "short":
        del weights["head.logits.weight"]
    elif kind == "other":
        weights["head.logits.weight"] = torch.zeros(2, 8, 1, 1)
    safetensors.torch.save_file(weights, path, metadata)
    return path


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("truncated", "is not a safetensors file"),
        ("bare", "holds weights but no architecture"),
        ("homeless", "does not say which data it is for"),
        ("off", "must be one of"),
        ("short", r"head\.logits\.weight is missing or has another shape"),
        ("other", r"head\.logits\.weight is missing or has another shape"),
    ],
)
def test_what_is_no_model_is_refused(network: Network, tmp_path: Path, kind: str, rule: str) -> None:
    path = broken(tmp_path, network, kind)
    with pytest.raises(ValueError, match=rule) as error:
        load_model(path)
    assert str(error.value).startswith(str(path))


def test_no_model_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a run folder or a model file"):
        load_model(tmp_path / "nothing")
    with pytest.raises(ValueError, match="a run folder must hold one"):
        load_model(tmp_path)
