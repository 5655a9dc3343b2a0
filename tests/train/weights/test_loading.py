from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from baselines.backbones import BACKBONES, Shape, Stage
from baselines.deeplabv3plus import deeplabv3plus_efficientnet_lite0
from nasseg.graph import Builder
from nasseg.train.weights import loading as weights
from nasseg.train.weights.loading import load_backbone, load_pretrained, read_weights
from tests.train.tiny import tiny_network


def backbone_weights() -> dict[str, torch.Tensor]:
    """A backbone's tensors under the names that its own project would give them."""
    return tiny_network(seed=5).backbone.state_dict()


@pytest.mark.parametrize("ending", ["safetensors", "pth", "wrapped.pth"])
def test_backbone_from_a_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    content = backbone_weights() | {"classifier.1.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}
    if ending == "safetensors":
        save_file(content, path)
    else:
        torch.save({"state_dict": content, "epoch": 3} if ending == "wrapped.pth" else content, path)
    network = tiny_network()
    head = network.head.weight.clone()
    report = load_pretrained(network, path)
    assert report.complete
    assert len(report.matched) == 7
    torch.testing.assert_close(dict(network.backbone.state_dict()), backbone_weights(), rtol=0, atol=0)
    assert torch.equal(network.head.weight, head)


def test_partial_match_lists_what_did_not() -> None:
    content = backbone_weights()
    content["0.weight"] = torch.zeros(4, 3, 3, 3)
    content["7.weight"] = content.pop("1.weight")
    report = load_backbone(tiny_network(), content)
    assert report.other_shape == ("backbone.0.weight (4, 3, 3, 3) for (8, 3, 3, 3)",)
    assert report.missing == ("backbone.1.weight",)
    assert report.unexpected == ("backbone.7.weight",)
    assert str(report) == (
        "5 tensors matched; 1 not in the file: backbone.1.weight; 1 not in the network: backbone.7.weight; "
        "1 of another shape: backbone.0.weight (4, 3, 3, 3) for (8, 3, 3, 3)"
    )


def test_nothing_matches() -> None:
    with pytest.raises(ValueError, match="Nothing in the weights matches the network's backbone"):
        load_backbone(tiny_network(), {"conv.weight": torch.ones(1)})


def test_linear_classifier_becomes_convolution() -> None:
    """As FCN does with VGG16's first two linear layers; the last, which it replaces, is left out."""
    network = nn.Module()
    network.backbone = nn.ModuleDict({"classifier": nn.Conv2d(2, 4, 3)})
    weight = torch.randn(4, 18)
    report = load_backbone(
        network,
        {"classifier.weight": weight, "classifier.bias": torch.ones(4), "classifier.6.weight": torch.ones(9, 4)},
    )
    assert report.complete
    features = torch.randn(1, 2, 3, 3)
    expected = nn.functional.linear(features.flatten(1), weight, torch.ones(4))
    torch.testing.assert_close(network.backbone["classifier"](features).flatten(1), expected)


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_damaged_and_missing_files(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    with pytest.raises(ValueError, match="no such file"):
        read_weights(path)
    path.write_bytes(b"\x00damaged")
    with pytest.raises(ValueError, match="damaged"):
        read_weights(path)


def test_file_without_tensors(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds no named tensors"):
        read_weights(tmp_path / "a.pth")


def vgg_like() -> nn.Module:
    network = nn.Module()
    network.backbone = nn.ModuleDict({"features": nn.ModuleDict({"28": nn.Conv2d(1, 1, 1)})})
    return network


def test_imagenet_fetches_the_backbones_file(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(url: str, **options: Any) -> dict[str, torch.Tensor]:
        asked.append(url)
        assert options["check_hash"]
        return {"features.28.weight": torch.full((1, 1, 1, 1), 4.0)}

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    network = vgg_like()
    report = load_pretrained(network, "imagenet")
    assert asked == ["https://download.pytorch.org/models/vgg16-397923af.pth"]
    assert report.matched == ("backbone.features.28.weight",)
    assert network.get_parameter("backbone.features.28.weight").item() == 4


def test_offline_says_which_file_to_put_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fetch(url: str, **options: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=rf"vgg16-397923af\.pth cannot be fetched .*put the file into {tmp_path}"):
        load_pretrained(vgg_like(), "imagenet")


def test_imagenet_for_an_unknown_backbone() -> None:
    with pytest.raises(ValueError, match=r"published for mobilenet_v2, vgg16, .*not for this backbone"):
        load_pretrained(tiny_network(), "imagenet")


def test_efficientnet_lite_has_its_published_names() -> None:
    network = deeplabv3plus_efficientnet_lite0(3).network()
    pairs = {
        "_conv_stem.weight": "stem.0.weight",
        "_bn0.bias": "stem.1.bias",
        "_blocks.0._depthwise_conv.weight": "blocks.0.conv.0.0.weight",
        "_blocks.0._bn1.running_var": "blocks.0.conv.0.1.running_var",
        "_blocks.0._project_conv.weight": "blocks.0.conv.1.weight",
        "_blocks.0._bn2.weight": "blocks.0.conv.2.weight",
        "_blocks.10._expand_conv.weight": "blocks.10.conv.0.0.weight",
        "_blocks.10._bn0.running_mean": "blocks.10.conv.0.1.running_mean",
        "_blocks.10._depthwise_conv.weight": "blocks.10.conv.1.0.weight",
        "_blocks.10._bn1.weight": "blocks.10.conv.1.1.weight",
        "_blocks.10._project_conv.weight": "blocks.10.conv.2.weight",
        "_blocks.10._bn2.bias": "blocks.10.conv.3.bias",
    }
    own = network.state_dict()
    content = {theirs: torch.rand(own[f"backbone.{ours}"].shape) for theirs, ours in pairs.items()}
    assert len(load_backbone(network, content).matched) == len(pairs)
    for theirs, ours in pairs.items():
        assert torch.equal(own[f"backbone.{ours}"], content[theirs])


def test_other_names_say_which_are_known() -> None:
    network = deeplabv3plus_efficientnet_lite0(3).network()
    with pytest.raises(ValueError, match=r"torchvision's names, or EfficientNet-Lite's \(_conv_stem\.weight, …\)$"):
        load_backbone(network, {"blocks.0.0.conv_dw.weight": torch.zeros(32, 1, 3, 3)})


@pytest.mark.parametrize("name", ["mobilenetv2", "resnet18", "resnet50", "resnet101"])
def test_imagenet_knows_a_backbone_of_any_shape(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(url: str, **options: Any) -> dict[str, torch.Tensor]:
        asked.append(url)
        return {}

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    g = Builder(name)
    small = Shape(stages=[Stage(blocks=1, width=0.5)] * (2 if name.startswith("resnet") else 3))
    shape = None if name == "resnet101" else small
    weights.imagenet_weights(g.build(BACKBONES[name](g, g.input(), 8, shape=shape).output).network())
    assert [url.rpartition("/")[2].partition("-")[0].replace("_", "") for url in asked] == [name]


def test_mobilenetv2_file_fits_exactly(shared: Path) -> None:
    pytest.importorskip("baselines.deeplabv3plus")
    from baselines.deeplabv3plus import deeplabv3plus_mobilenetv2
    from nasseg.network import Network

    path = shared / "weights" / "mobilenet_v2-imagenet.safetensors"
    network = Network(deeplabv3plus_mobilenetv2(num_classes=3))
    report = load_pretrained(network, path)
    assert not report.other_shape
    assert not report.missing
    assert weights.IMAGENET["mobilenet_v2"].parameter in load_file(path)
    assert f"backbone.{weights.IMAGENET['mobilenet_v2'].parameter}" in network.state_dict()
    first = load_file(path)["features.0.0.weight"]
    assert torch.equal(network.get_parameter("backbone.features.0.0.weight"), first)
