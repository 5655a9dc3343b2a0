"""EfficientNet-Lite beside its own definition in plain PyTorch, with the published weights on a photograph."""

from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from baselines.backbones import BACKBONES, Shape, Stage
from nasseg.graph import Builder
from nasseg.network import Network
from nasseg.train.weights.loading import load_pretrained

BLOCKS = (
    "r1_k3_s11_e1_i32_o16",
    "r2_k3_s22_e6_i16_o24",
    "r2_k5_s22_e6_i24_o40",
    "r3_k3_s22_e6_i40_o80",
    "r3_k5_s11_e6_i80_o112",
    "r4_k5_s22_e6_i112_o192",
    "r1_k3_s11_e6_i192_o320",
)
"""The authors' own description of EfficientNet-B0's blocks: repeats, kernel, stride, expansion, input, output."""
REPEATS = {0: (1, 2, 2, 3, 3, 4, 1), 1: (1, 3, 3, 4, 4, 5, 1), 2: (1, 3, 3, 4, 4, 5, 1)}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def same_conv(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """TensorFlow's convolution with padding "SAME"; depthwise where the weight has one input channel."""
    pads: list[int] = []
    for size, kernel in ((x.shape[3], weight.shape[3]), (x.shape[2], weight.shape[2])):
        total = max((ceil(size / stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    groups = x.shape[1] if weight.shape[1] == 1 else 1
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def definition(x: Tensor, weights: dict[str, Tensor], model: int) -> list[Tensor]:
    """The stem's output and each block's."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{tensor}"] for tensor in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, scale, shift, eps=1e-3)

    maps = [F.relu6(norm(same_conv(x, weights["_conv_stem.weight"], 2), "_bn0"))]
    for row, repeats in zip(BLOCKS, REPEATS[model], strict=True):
        stride, expansion = int(row[7]), int(row.split("_e")[1][0])
        for repeat in range(repeats):
            name, x = f"_blocks.{len(maps) - 1}", maps[-1]
            y = x
            if expansion > 1:
                y = F.relu6(norm(F.conv2d(y, weights[f"{name}._expand_conv.weight"]), f"{name}._bn0"))
            y = same_conv(y, weights[f"{name}._depthwise_conv.weight"], stride if repeat == 0 else 1)
            y = F.relu6(norm(y, f"{name}._bn1"))
            y = norm(F.conv2d(y, weights[f"{name}._project_conv.weight"]), f"{name}._bn2")
            maps.append(y + x if repeat else y)
    return maps


def pretrained(model: int, folder: Path, shape: Shape | None = None) -> Network:
    """The backbone with the published weights; its outputs are the stem and all blocks."""
    g = Builder(f"efficientnet_lite{model}")
    features = BACKBONES[g.name](g, g.input(), 32, shape=shape)
    nodes = [node.name for node in g.build(features.output).nodes[1:]]
    network = g.build(*nodes).network().eval()
    report = load_pretrained(network, folder / "weights" / f"efficientnet_lite{model}-imagenet.safetensors")
    assert not report.missing
    assert not report.other_shape
    assert shape is not None or not report.unexpected
    return network


def photograph(folder: Path, size: tuple[int, int]) -> Tensor:
    path = min((folder / "camvid" / "images" / "val").iterdir())
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))[: size[0], : size[1]]).permute(2, 0, 1) / 255
    return ((pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None])[None]


@pytest.mark.parametrize("model", [0, 1, 2])
@pytest.mark.parametrize("size", [(128, 160), (129, 99)], ids=str)
@torch.no_grad()
def test_published_weights_give_what_their_definition_gives(model: int, size: tuple[int, int], shared: Path) -> None:
    image = photograph(shared, size)
    weights = load_file(shared / "weights" / f"efficientnet_lite{model}-imagenet.safetensors")
    network = pretrained(model, shared)
    expected = definition(image, weights, model)
    outputs = network.outputs({"image": image})
    assert list(outputs) == ["backbone.stem", *(f"backbone.blocks.{index}" for index in range(len(expected) - 1))]
    for name, theirs in zip(outputs, expected, strict=True):
        assert theirs.std() > 0.1
        torch.testing.assert_close(outputs[name], theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()), msg=name)


@torch.no_grad()
def test_larger_kernels_see_the_photograph_as_the_published_ones(shared: Path) -> None:
    image = photograph(shared, (97, 128))
    larger = pretrained(0, shared, Shape(stages=[Stage(kernel=7)] * 7))
    expected = pretrained(0, shared).outputs({"image": image})
    for name, y in larger.outputs({"image": image}).items():
        torch.testing.assert_close(y, expected[name], rtol=1e-5, atol=1e-5 * float(expected[name].abs().max()))
