import torch
from torch import nn

from nasseg.ops.layers import BatchNorm, bilinear


def test_batch_norm_equals_pytorchs_where_that_can_train() -> None:
    ours, theirs = BatchNorm(3).train(), nn.BatchNorm2d(3).train()
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), theirs(x))
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_batch_norm_of_a_single_value_uses_the_running_statistics_and_leaves_them() -> None:
    norm = BatchNorm(3).train()
    norm(torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)))
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    x = torch.randn(1, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    output = norm(x)
    torch.testing.assert_close(norm.state_dict(), before)
    torch.testing.assert_close(output, norm.eval()(x))


def test_bilinear_leaves_a_map_that_fits() -> None:
    x = torch.zeros(1, 1, 3, 4)
    assert bilinear(x, (3, 4)) is x
    assert bilinear(x, (6, 2)).shape == (1, 1, 6, 2)
