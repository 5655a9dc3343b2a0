"""Weights from files into networks: a network's own, and a pretrained backbone's with its published names."""

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from reprlib import repr as short_repr
from typing import NamedTuple
from urllib.error import URLError

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from nasseg.network import Network
from nasseg.train.checkpoint import load_checkpoint, load_safetensors
from nasseg.train.weights.remapping import OtherBackbone, remapped

BACKBONE = "backbone."
CLASSIFIERS = ("classifier.", "fc.")
"""How the names of torchvision's ImageNet heads begin."""
SHOWN = 3
"""Tensors that a report names of each kind."""
SUFFIXES = (".safetensors", ".pth", ".pt")
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
    """A checkpoint that torchvision publishes, and a parameter by which a network that names no backbone is known."""

    url: str
    parameter: str


IMAGENET = {
    "mobilenetv2": Published(
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
        """Tell in one line how many matched, and the first names of those that did not."""
        parts = [f"{len(self.matched)} tensors matched"]
        for label, names in (
            ("not in the file", self.missing),
            ("not in the network", self.unexpected),
            ("of another shape", self.other_shape),
        ):
            if names:
                shown = ", ".join([*names[:SHOWN], *["…"] * (len(names) > SHOWN)])
                parts.append(f"{len(names)} {label}: {shown}")
        return "; ".join(parts)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file or a PyTorch checkpoint by name. Nothing in the file is executed.

    A checkpoint may hold them directly, or under `state_dict`, `model` or `network`.

    Raises `ValueError` for a file that is missing or is neither.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; correct the path, or use 'imagenet'")
    if path.suffix == ".safetensors":
        return load_safetensors(path, "fetch it again")
    content: object = load_checkpoint(path)
    for key in ("state_dict", "model", "network"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{path} holds no named tensors; give one saved from a state_dict()")
    for name, tensor in content.items():
        if (
            not isinstance(name, str)
            or tensor.layout != torch.strided
            or tensor.nbytes > tensor.untyped_storage().nbytes()
        ):
            raise ValueError(f"{path}: {short_repr(name)} is no plain tensor; give one saved from a state_dict()")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


class Pretrained:
    """Weights of one or several published backbones, of which each network takes those of its own.

    `source` is a file, a folder of files, `imagenet`, or several of these joined by commas. Each file is read once. A
    network whose architecture does not say which published backbone it has takes the first whose names and shapes fit.

    Raises `ValueError` for a file that cannot be read, or a folder without any.
    """

    def __init__(self, source: str | Path) -> None:
        names = [name for part in str(source).split(",") for name in _names(part.strip())]
        self._fetch = cache(fetch)
        self._weights = {name: None if name == "imagenet" else read_weights(Path(name)) for name in names}

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all tensors, wherever their files are; of what is fetched, of its name."""
        digest = hashlib.sha256()
        for weights in self._weights.values():
            for name, tensor in sorted((weights or {"imagenet": torch.empty(0)}).items()):
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def load_into(self, network: nn.Module) -> WeightsReport:
        """Set the weights of a network's stage `backbone`.

        Raises `OtherBackbone` if all weights are of other backbones, and `ValueError` if some cannot be fetched.
        """
        # Alone, weights say themselves why they do not fit.
        refusals = [OtherBackbone] if len(self._weights) > 1 else []
        for name in self._weights:
            with suppress(*refusals):
                return self._load(name, network)
        raise OtherBackbone(f"none of the weights is of {_backbone(network)}: {', '.join(self._weights)}; add its file")

    def _load(self, name: str, network: nn.Module) -> WeightsReport:
        weights = self._weights[name]
        return load_backbone(network, self._fetch(imagenet_url(network)) if weights is None else weights, name)


def absolute_source(source: str | Path) -> str:
    """Return what `Pretrained` takes with absolute paths."""
    names = (part.strip() for part in str(source).split(","))
    return ",".join(name if name == "imagenet" else str(Path(name).expanduser().resolve()) for name in names)


def load_pretrained(network: nn.Module, source: str | Path) -> WeightsReport:
    """Set the weights of a network's stage `backbone` from what `Pretrained` takes; raises as that does."""
    return Pretrained(source).load_into(network)


def load_backbone(network: nn.Module, weights: Mapping[str, Tensor], name: str = "the weights") -> WeightsReport:
    """Set the weights of a network's stage `backbone`.

    Names are torchvision's, with or without `backbone.` before them, or those of `EFFICIENTNET_LITE`. ImageNet
    classifiers are left out, but where the backbone has turned their linear layers into convolutions (FCN), these get
    the weights. A backbone that keeps a part of the published one takes that part of the weights (`remapping.py`).

    Raises `ValueError` for a network without that stage, and `OtherBackbone` where nothing matches, or where the
    weights are too small or not those of the published backbone that the architecture names. A file with exactly the
    tensors of this backbone, such as a trained model's, is its own whatever was published.
    """
    own = network.state_dict()
    if not any(key.startswith(BACKBONE) for key in own):
        raise ValueError(f"{name} cannot be loaded: the network has no stage 'backbone'; leave the weights out")
    wanted = {
        key if key.startswith(BACKBONE) else BACKBONE + key: tensor
        for key, tensor in ((_our_name(name), tensor) for name, tensor in weights.items())
        if BACKBONE + key in own or not key.startswith(CLASSIFIERS)
    }
    if isinstance(network, Network):
        if not own.keys().isdisjoint(wanted) and not _is_exactly(weights, own):
            _refuse_relatives(wanted, network, name)
        wanted = remapped(wanted, network.architecture)
    report = _assign(network, wanted, prefix=BACKBONE)
    if not report.matched:
        raise OtherBackbone(
            f"Nothing in {name} matches {_backbone(network)}: use weights of the same backbone, with "
            "torchvision's names, or EfficientNet-Lite's (_conv_stem.weight, …)"
        )
    return report


def _names(source: str) -> list[str]:
    """The files of a folder, or what is none itself."""
    folder = Path(source)
    if not folder.is_dir():
        return [source]
    files = sorted(str(path) for path in folder.iterdir() if path.suffix in SUFFIXES)
    if not files:
        raise ValueError(f"{folder} holds no weights, but must have files that end in {', '.join(SUFFIXES)}")
    return files


def _backbone(network: nn.Module) -> str:
    """The name of a network's backbone, for messages."""
    known = network.architecture.backbone if isinstance(network, Network) else None
    return "the network's backbone" if known is None else f"{known.name}, the network's backbone"


def _is_exactly(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Tell whether the weights have all tensors of the stage `backbone` by its own names and shapes, and no others."""
    one, other = (
        {name: tensor.shape for name, tensor in tensors.items() if name.startswith(BACKBONE)}
        for tensors in (weights, own)
    )
    return one == other


def _refuse_relatives(weights: Mapping[str, Tensor], network: Network, name: str) -> None:
    """Raise `OtherBackbone` for weights without the marks of the published backbone that the architecture names."""
    backbone = network.architecture.backbone
    for mark, channels in {} if backbone is None else backbone.channels.items():
        found = len(weights[mark]) if mark in weights else 0
        if found != channels:
            has = f"has {mark} with {found} output channels" if found else f"has no {mark}"
            rule = f"with {channels}" if channels else "without it"
            raise OtherBackbone(f"{name} {has}, but {_backbone(network)}, is published {rule}: use weights of that")


def imagenet_url(network: nn.Module) -> str:
    """Find torchvision's ImageNet weights for a network's backbone; raises `OtherBackbone` if there are none."""
    known = network.architecture.backbone if isinstance(network, Network) else None
    own = network.state_dict()
    for name, published in IMAGENET.items():
        if BACKBONE + published.parameter in own if known is None else name == known.name:
            return published.url
    raise OtherBackbone(
        f"ImageNet weights are published for {', '.join(IMAGENET)}, not for {_backbone(network)}: use a file"
    )


def fetch(url: str) -> dict[str, Tensor]:
    """Fetch a published checkpoint into PyTorch's cache, once; raises `ValueError` if that fails."""
    try:
        weights: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (URLError, OSError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise ValueError(f"{url} cannot be fetched ({error}): put the file into {folder}, or give its path") from error
    return weights


@cache
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
