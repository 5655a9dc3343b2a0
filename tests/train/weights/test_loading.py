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
from nasseg.network import Network
from nasseg.ops import Conv
from nasseg.train.weights import loading as weights
from nasseg.train.weights.loading import Pretrained, load_backbone, load_pretrained, read_weights
from nasseg.train.weights.remapping import OtherBackbone
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
    with pytest.raises(ValueError, match=r"^Nothing in the weights matches the network's backbone: use weights of"):
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
    with pytest.raises(ValueError, match=r"published for mobilenetv2, vgg16, .*not for the network's backbone: use a"):
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
        "_blocks.15._project_conv.weight": "blocks.15.conv.2.weight",
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
    network = g.build(BACKBONES[name](g, g.input(), 8, shape=small).output).network()
    with pytest.raises(ValueError, match="Nothing in imagenet matches"):
        load_pretrained(network, "imagenet")
    assert [url.rpartition("/")[2].partition("-")[0].replace("_", "") for url in asked] == [name]


NAMES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "mobilenetv2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights of several backbones, each with values of its own, and with something else."""
    folder = tmp_path_factory.mktemp("weights")
    for value, name in enumerate(NAMES, 1):
        state = backbone(name).state_dict()
        save_file(
            {key: torch.full_like(tensor, value) for key, tensor in state.items()}, folder / f"{name}.safetensors"
        )
    (folder / "README.md").write_text("no weights")
    return folder


def backbone(name: str, shape: Shape | None = None) -> Network:
    g = Builder(name)
    return g.build(BACKBONES[name](g, g.input(), 8, shape=shape).output).network()


@pytest.mark.parametrize("shape", [None, Shape(stages=[Stage(width=0.5, blocks=1)] * 4)], ids=["published", "small"])
def test_each_network_takes_the_file_of_its_backbone(folder: Path, shape: Shape | None) -> None:
    for source in (str(folder), ", ".join(str(folder / f"{name}.safetensors") for name in reversed(NAMES))):
        pretrained = Pretrained(source)
        for value, name in enumerate(NAMES, 1):
            network = backbone(name, shape)
            assert not pretrained.load_into(network).missing
            assert {tensor.unique().item() for tensor in network.parameters()} == {value}


def test_a_network_that_no_file_fits_is_told_with_backbone_and_files(folder: Path, tmp_path: Path) -> None:
    lite0, lite2 = (f"{folder}/efficientnet_lite{model}.safetensors" for model in (0, 2))
    network = backbone("efficientnet_lite1")
    with pytest.raises(OtherBackbone) as caught:
        Pretrained(f"{lite0},{lite2}").load_into(network)
    assert str(caught.value) == (
        f"none of the weights is of efficientnet_lite1, the network's backbone: {lite0}, {lite2}; add its file"
    )
    with pytest.raises(OtherBackbone, match=r"^\S+lite0\.safetensors has no backbone\.blocks\.20\.conv\.2\.weight"):
        Pretrained(lite0).load_into(network)
    with pytest.raises(ValueError, match=r"holds no weights, but must have files that end in \.safetensors, "):
        Pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"missing\.safetensors: no such file"):
        Pretrained(f"{folder},missing.safetensors")


def test_imagenet_stands_beside_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(url: str, **options: Any) -> dict[str, torch.Tensor]:
        asked.append(url)
        return {name: torch.full_like(tensor, 7) for name, tensor in backbone("mobilenetv2").state_dict().items()}

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    pretrained = Pretrained(f"imagenet,{folder}/efficientnet_lite0.safetensors")
    for name, value in (("mobilenetv2", 7), ("efficientnet_lite0", 1), ("mobilenetv2", 7)):
        network = backbone(name)
        pretrained.load_into(network)
        assert {tensor.unique().item() for tensor in network.parameters()} == {value}
    assert len(asked) == 1


def test_a_network_without_a_backbone_says_so(folder: Path) -> None:
    g = Builder("plain")
    network = g.build(g.add("head.conv", Conv(out_channels=2), g.input())).network()
    with pytest.raises(ValueError, match=r"2\.safetensors cannot be loaded: the network has no stage 'backbone'"):
        load_pretrained(network, folder / "mobilenetv2.safetensors")


def test_mobilenetv2_file_fits_exactly(shared: Path) -> None:
    pytest.importorskip("baselines.deeplabv3plus")
    from baselines.deeplabv3plus import deeplabv3plus_mobilenetv2
    from nasseg.network import Network

    path = shared / "weights" / "mobilenet_v2-imagenet.safetensors"
    network = Network(deeplabv3plus_mobilenetv2(num_classes=3))
    report = load_pretrained(network, path)
    assert not report.other_shape
    assert not report.missing
    assert weights.IMAGENET["mobilenetv2"].parameter in load_file(path)
    assert f"backbone.{weights.IMAGENET['mobilenetv2'].parameter}" in network.state_dict()
    first = load_file(path)["features.0.0.weight"]
    assert torch.equal(network.get_parameter("backbone.features.0.0.weight"), first)
