import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search_spaces.auto_deeplab.operators import OPERATORS, OperatorName, match_channels, operator

C = 6
PARAMS: dict[OperatorName, int] = {
    "sep3": 2 * (9 * C + C * C + 2 * C),  # depthwise, pointwise, one norm; twice
    "sep5": 2 * (25 * C + C * C + 2 * C),
    "atrous3": 9 * C * C + 2 * C,  # dense
    "atrous5": 25 * C * C + 2 * C,
    "average_pool": 0,
    "max_pool": 0,
    "skip": 0,
    "zero": 0,
}


def built(name: OperatorName, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*(op.build([C]) for op in operator(name, C, stride)))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("stride", [1, 2])
def test_shapes_and_parameters(name: OperatorName, stride: int) -> None:
    module = built(name, stride)
    assert module(torch.randn(2, C, 9, 12)).shape == (2, C, 9 if stride == 1 else 5, 12 // stride)
    strided_skip = C * C + 2 * C if (name, stride) == ("skip", 2) else 0
    assert sum(p.numel() for p in module.parameters()) == PARAMS[name] + strided_skip


def test_atrous_convolutions_look_at_rate_two() -> None:
    x = torch.zeros(1, C, 11, 11, requires_grad=True)
    module = built("atrous5").eval()
    (module(x + 1)[0, 0, 5, 5]).backward()
    rows = {int(row) for row in x.grad.abs().sum((0, 1, 3)).nonzero()}
    assert rows == {1, 3, 5, 7, 9}


@pytest.mark.parametrize("name", ["sep3", "sep5", "atrous3", "atrous5"])
def test_convolutions_start_with_relu_and_end_without(name: OperatorName) -> None:
    torch.manual_seed(0)
    module = built(name).eval()
    x = torch.randn(1, C, 8, 8)
    torch.testing.assert_close(module(x), module(F.relu(x)))
    assert module(x).min() < 0


def test_plain_operators_are_pytorchs() -> None:
    x = torch.randn(2, C, 8, 8)
    torch.testing.assert_close(built("max_pool", 2)(x), F.max_pool2d(x, 3, 2, 1))
    torch.testing.assert_close(built("average_pool")(x), F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
    torch.testing.assert_close(built("skip")(x), x)
    assert not built("zero", 2)(x).any()


def test_match_channels_changes_the_number_of_channels() -> None:
    module = match_channels(4).build([C])
    assert [type(layer).__name__ for layer in module][:2] == ["ReLU", "Conv2d"]
    assert module(torch.randn(1, C, 5, 5)).shape == (1, 4, 5, 5)
