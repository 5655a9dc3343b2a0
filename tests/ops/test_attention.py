from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasseg.cost import op_madds
from nasseg.network import initialise
from nasseg.ops import AttentionFusion, SelfAttention

Kind = Literal["spatial", "channel"]


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


DEEPER, LATERAL = images(2, 6, 5, 4), images(2, 6, 5, 4, seed=1)


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize("attention", ["spatial", "channel"])
@pytest.mark.parametrize(("logit", "expected"), [(-200.0, LATERAL), (200.0, DEEPER), (0.0, (DEEPER + LATERAL) / 2)])
@torch.no_grad()
def test_fusion_weighs_the_deeper_map_by_the_attention(attention: Kind, logit: float, expected: Tensor) -> None:
    module = AttentionFusion(attention=attention).build([6, 6]).eval()
    *_, last_norm = (layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))
    nn.init.zeros_(last_norm.weight)
    nn.init.constant_(last_norm.bias, logit)
    torch.testing.assert_close(module(DEEPER, LATERAL), expected)


@pytest.mark.parametrize(("attention", "axes", "padding"), [("spatial", (1,), 1), ("channel", (2, 3), 0)])
@torch.no_grad()
def test_fusion_attends_to_means_and_maxima_of_both_maps(attention: Kind, axes: tuple[int, ...], padding: int) -> None:
    module = AttentionFusion(attention=attention).build([6, 6]).eval()
    first, second = convolutions(module)
    pooled = torch.cat([f(x, dim=axes, keepdim=True) for x in (DEEPER, LATERAL) for f in (torch.mean, torch.amax)], 1)
    scale = (1 + 1e-5) ** -0.5  # a batch norm that has seen nothing
    hidden = (F.conv2d(pooled, first.weight, padding=padding) * scale).relu()
    weight = (F.conv2d(hidden, second.weight, padding=padding) * scale).sigmoid()
    torch.testing.assert_close(module(DEEPER, LATERAL), weight * DEEPER + (1 - weight) * LATERAL)


def test_fusion_needs_maps_of_equal_channels() -> None:
    with pytest.raises(ValueError, match="inputs have 6, 1 channels, but must have equal numbers"):
        AttentionFusion().check([6, 1])
    assert (
        AttentionFusion(attention="channel").build([1, 1]).eval()(images(1, 1, 2, 2), images(1, 1, 2, 2)).shape[1] == 1
    )


def test_fusion_costs_what_its_convolutions_do() -> None:
    shapes = [(12, 7, 5), (12, 7, 5)]
    assert op_madds(AttentionFusion(), shapes) == (4 * 2 + 2 * 1) * 9 * 7 * 5
    assert op_madds(AttentionFusion(attention="channel"), shapes) == (4 * 12) * 6 + 6 * 12


@pytest.mark.parametrize("heads", [1, 2, 4])
@torch.no_grad()
def test_self_attention_equals_a_softmax_at_each_position(heads: int) -> None:
    module = SelfAttention(out_channels=8, heads=heads).build([3]).eval()
    _, position, query_key_value, out = convolutions(module)
    (norm,) = (layer for layer in module.modules() if isinstance(layer, nn.LayerNorm))
    x = module.get_submodule("project")(images(2, 3, 3, 4))
    x = x + F.conv2d(x, position.weight, position.bias, padding=1, groups=8)
    attended = torch.zeros(2, 8, 3, 4)
    for image in range(2):
        tokens = norm(x[image].flatten(1).T)
        q, k, v = (tokens @ query_key_value.weight[:, :, 0, 0].T + query_key_value.bias).split(8, dim=1)
        for head in range(heads):
            part = slice(head * 8 // heads, (head + 1) * 8 // heads)
            for i in range(12):
                similar = torch.stack([q[i, part] @ k[j, part] for j in range(12)]) / (8 / heads) ** 0.5
                share = similar.exp() / similar.exp().sum()
                attended[image, part, i // 4, i % 4] = sum(share[j] * v[j, part] for j in range(12))
    torch.testing.assert_close(module(images(2, 3, 3, 4)), x + F.conv2d(attended, out.weight, out.bias))


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="heads is 3, but must divide out_channels 8"):
        SelfAttention(out_channels=8, heads=3)


def test_self_attention_costs_what_its_matrix_products_do() -> None:
    pixels, channels, given = 6 * 5, 16, 7
    convolutions = given * channels + 9 * channels + 3 * channels**2 + channels**2
    expected = convolutions * pixels + 2 * pixels**2 * channels
    assert op_madds(SelfAttention(out_channels=channels), [(given, 6, 5)]) == expected
    assert op_madds(SelfAttention(out_channels=channels, heads=8), [(given, 6, 5)]) == expected


@torch.no_grad()
def test_self_attention_starts_nearly_even() -> None:
    """Queries times keys of drawn weights have variance (2/3)²: no position takes all of the softmax."""
    module = SelfAttention(out_channels=256).build([256])
    torch.manual_seed(0)
    initialise(module)
    query_key_value = convolutions(module)[2]
    normalised = F.layer_norm(images(1, 100, 256), [256]).transpose(1, 2).unsqueeze(-1)
    query, key, _ = query_key_value(normalised).view(3, 4, 64, 100).transpose(2, 3)
    logits = query @ key.transpose(1, 2) / 64**0.5
    assert logits.std().item() == pytest.approx(2 / 3, rel=0.1)
