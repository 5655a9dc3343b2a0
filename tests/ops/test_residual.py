import pytest
import torch
import torch.nn.functional as F

from nasseg.ops import BasicBlock, Bottleneck, InvertedResidual


@pytest.mark.parametrize(
    ("expansion", "names"),
    [(1, ["conv.0.0.weight", "conv.1.weight"]), (6, ["conv.0.0.weight", "conv.1.0.weight", "conv.2.weight"])],
)
def test_inverted_residual_has_torchvisions_names(expansion: int, names: list[str]) -> None:
    state = InvertedResidual(out_channels=16, expansion=expansion).build([8]).state_dict()
    assert [name for name, value in state.items() if value.ndim == 4] == names
    last = len(names)
    norms = [name.rpartition(".")[0] for name in state if name.endswith("running_mean")]
    assert norms == [*(f"conv.{index}.1" for index in range(last - 1)), f"conv.{last}"]


@pytest.mark.parametrize(("stride", "rate", "out_channels"), [(1, 1, 4), (1, 2, 4), (2, 1, 4), (1, 1, 6)])
@torch.no_grad()
def test_inverted_residual_equals_its_formula(stride: int, rate: int, out_channels: int) -> None:
    torch.manual_seed(0)
    block = InvertedResidual(out_channels=out_channels, expansion=3, stride=stride, rate=(rate, rate)).build([4]).eval()
    x = torch.randn(2, 4, 7, 6)
    expand, depthwise, project = (parameter for parameter in block.parameters() if parameter.ndim == 4)
    norm = 1 / (1 + 1e-5) ** 0.5  # of fresh running statistics
    y = F.relu6(norm * F.conv2d(x, expand))
    y = F.relu6(norm * F.conv2d(y, depthwise, stride=stride, padding=rate, dilation=rate, groups=12))
    y = norm * F.conv2d(y, project)
    torch.testing.assert_close(block(x), y + x if stride == 1 and out_channels == 4 else y)


@torch.no_grad()
def test_inverted_residual_without_its_input_is_its_formula_alone() -> None:
    torch.manual_seed(0)
    block, x = InvertedResidual(out_channels=4).build([4]).eval(), torch.randn(1, 4, 5, 5)
    alone = InvertedResidual(out_channels=4, residual=False).build([4]).eval()
    alone.load_state_dict(block.state_dict())
    torch.testing.assert_close(alone(x) + x, block(x))


@pytest.mark.parametrize(
    "op",
    [
        InvertedResidual(out_channels=8, kernel=5),
        BasicBlock(out_channels=8, kernel=5),
        Bottleneck(out_channels=8, kernel=5),
    ],
)
def test_kernel_is_that_of_the_convolutions_beyond_1x1(op: InvertedResidual | BasicBlock | Bottleneck) -> None:
    smaller = op.model_copy(update={"kernel": 3}).build([8]).state_dict()
    for name, tensor in op.build([8]).state_dict().items():
        assert tensor.shape[2:] == ((5, 5) if smaller[name].shape[2:] == (3, 3) else smaller[name].shape[2:])


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_projection_puts_a_convolution_into_the_shortcut(kind: type[BasicBlock] | type[Bottleneck]) -> None:
    assert not any("downsample" in name for name in kind(out_channels=8).build([8]).state_dict())
    weight = kind(out_channels=8, projection=True).build([8]).state_dict()["downsample.0.weight"]
    assert weight.shape == (8, 8, 1, 1)
