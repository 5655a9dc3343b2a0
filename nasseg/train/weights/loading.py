"""Weights from files into networks: a network's own, and a pretrained backbone's with its published names."""

import re
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from torch import Tensor, nn

from nasseg.network import Network
from nasseg.train.checkpoint import load_checkpoint
from nasseg.train.weights.remapping import remapped

BACKBONE = "backbone."
CLASSIFIERS = ("classifier.", "fc.")
"""How the names of torchvision's ImageNet heads begin."""
EFFICIENTNET_LITE = {
    "_conv_stem": "stem.0",
    "_bn0": "stem.1",
    r"_blocks\.0\._depthwise_conv": "blocks.0.conv.0.0",  # the first block expands nothing
    r"_blocks\.0\._bn1": "blocks.0.conv.0.1",
    r"_blocks\.0\._project_conv": "blocks.0.conv.1",
    r"_blocks\.0\._bn2": "blocks.0.conv.2",
    r"_blocks\.(\d+)\._expand_conv": r"blocks.\1.conv.0.0",
    r"_blocks\.(\d+)\._bn0": r"blocks.\1.conv.0.1",
    r"_blocks\.(\d+)\._depthwise_conv": r"blocks.\1.conv.1.0",
    r"_blocks\.(\d+)\._bn1": r"blocks.\1.conv.1.1",
    r"_blocks\.(\d+)\._project_conv": r"blocks.\1.conv.2",
    r"_blocks\.(\d+)\._bn2": r"blocks.\1.conv.3",
}
"""From the names of EfficientNet-Lite's layers in the port of its weights to PyTorch, to those in the backbone."""


class Published(NamedTuple):
    """A checkpoint that torchvision publishes, and a parameter that tells its network of any shape from others."""

    url: str
    parameter: str


IMAGENET = {
    "mobilenet_v2": Published(
        "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth", "features.1.conv.0.0.weight"
    ),
    "vgg16": Published("https://download.pytorch.org/models/vgg16-397923af.pth", "features.28.weight"),
    "resnet101": Published("https://download.pytorch.org/models/resnet101-63fe2227.pth", "layer3.22.conv3.weight"),
    "resnet50": Published("https://download.pytorch.org/models/resnet50-0676ba61.pth", "layer1.0.conv3.weight"),
    "resnet18": Published("https://download.pytorch.org/models/resnet18-f37072fd.pth", "layer1.0.conv2.weight"),
}
"""Checkpoints by the backbone's name, the more specific ones first."""


class WeightsReport(BaseModel):
    """The match of a file's tensors with a network's: names are the network's, those of `unexpected` the file's."""

    model_config = ConfigDict(frozen=True)

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    other_shape: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether everything matched."""
        return not (self.missing or self.unexpected or self.other_shape)

    def __str__(self) -> str:
        """Tell in one line how many matched, and the names of those that did not."""
        parts = [f"{len(self.matched)} tensors matched"]
        for label, names in (
            ("not in the file", self.missing),
            ("not in the network", self.unexpected),
            ("of another shape", self.other_shape),
        ):
            if names:
                parts.append(f"{len(names)} {label}: {', '.join(names)}")
        return "; ".join(parts)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file or a PyTorch checkpoint by name. Nothing in the file is executed.

    A checkpoint may hold them directly, or under `state_dict`, `model` or `network`.

    Raises `ValueError` for a file that is missing or is neither.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; correct the path, or use 'imagenet'")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a safetensors file, or a damaged one ({error}); fetch it again") from error
    content: object = load_checkpoint(path)
    for key in ("state_dict", "model", "network"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{path} holds no named tensors; give one saved from a state_dict()")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def load_pretrained(network: nn.Module, source: str | Path) -> WeightsReport:
    """Set the weights of a network's stage `backbone` from a file, or from ImageNet with the source `imagenet`.

    Names are torchvision's, with or without `backbone.` before them, or those of `EFFICIENTNET_LITE`. ImageNet
    classifiers are left out, but where the backbone has turned their linear layers into convolutions (FCN), these get
    the weights. A backbone that keeps a part of the published one takes that part of the weights (`remapping.py`).

    Raises `ValueError` where nothing matches, where the weights are of another backbone than the one that was
    re-shaped, or where the file cannot be read or fetched.
    """
    weights = imagenet_weights(network) if source == "imagenet" else read_weights(Path(source))
    return load_backbone(network, weights, name=str(source))


def load_backbone(network: nn.Module, weights: dict[str, Tensor], name: str = "the weights") -> WeightsReport:
    """Set the weights of a network's stage `backbone`; see `load_pretrained`."""
    own = network.state_dict()
    wanted = {
        key if key.startswith(BACKBONE) else BACKBONE + key: tensor
        for key, tensor in ((_our_name(name), tensor) for name, tensor in weights.items())
        if BACKBONE + key in own or not key.startswith(CLASSIFIERS)
    }
    if isinstance(network, Network):
        wanted = remapped(wanted, network.architecture)
    report = _assign(network, wanted, prefix=BACKBONE)
    if not report.matched:
        raise ValueError(
            f"Nothing in {name} matches the network's backbone ({report}): use weights of the same backbone, with "
            "torchvision's names, or EfficientNet-Lite's (_conv_stem.weight, …)"
        )
    return report


def imagenet_weights(network: nn.Module) -> dict[str, Tensor]:
    """Fetch torchvision's ImageNet weights for a network's backbone, once, into PyTorch's cache.

    Raises `ValueError` if there are none for this backbone, or if the file can neither be found nor fetched.
    """
    own = network.state_dict()
    url = next((p.url for p in IMAGENET.values() if BACKBONE + p.parameter in own), None)
    if url is None:
        raise ValueError(f"ImageNet weights are published for {', '.join(IMAGENET)}, not for this backbone: use a file")
    try:
        weights: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (URLError, OSError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise ValueError(f"{url} cannot be fetched ({error}): put the file into {folder}, or give its path") from error
    return weights


def _our_name(name: str) -> str:
    """The name that a tensor has in the backbone, from the one that it was published under."""
    layer, dot, tensor = name.rpartition(".")
    for pattern, ours in EFFICIENTNET_LITE.items():
        if match := re.fullmatch(pattern, layer):
            return match.expand(ours) + dot + tensor
    return name


def _assign(network: nn.Module, weights: dict[str, Tensor], prefix: str) -> WeightsReport:
    """Copy `weights` into the network's tensors of the same names and shapes, all those under `prefix` if possible."""
    own = network.state_dict()
    matched, unexpected, other_shape = [], [], []
    for name, tensor in weights.items():
        if name not in own:
            unexpected.append(name)
        elif not _fits(tensor, own[name]):
            other_shape.append(f"{name} {tuple(tensor.shape)} for {tuple(own[name].shape)}")
        else:
            matched.append(name)
    with torch.no_grad():
        for name in matched:
            own[name].copy_(weights[name].view(own[name].shape))
    counters = "num_batches_tracked"
    missing = [n for n in own if n.startswith(prefix) and n not in weights and not n.endswith(counters)]
    return WeightsReport(
        matched=tuple(matched), missing=tuple(missing), unexpected=tuple(unexpected), other_shape=tuple(other_shape)
    )


def _fits(tensor: Tensor, own: Tensor) -> bool:
    """Tell whether the shapes agree, or a linear layer's weight is a convolution's with its axes joined."""
    joined = tensor.ndim == 2 and own.ndim == 4 and tensor.shape[0] == own.shape[0] and tensor.numel() == own.numel()
    return tensor.shape == own.shape or joined
