import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nasseg.ops import Conv, SeparableConv, TransposedConv, atrous3x3, conv1x1, logits1x1


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kernel", "stride", "rate"), [(3, 1, (1, 6)), (3, 1, (4, 2)), (5, 2, (1, 1)), (7, 3, (1, 2))])
@torch.no_grad()
def test_conv_is_pytorchs_with_a_rate_per_axis(kernel: int, stride: int, rate: tuple[int, int]) -> None:
    op = Conv(
        out_channels=6, kernel=kernel, stride=stride, rate=rate, groups=2, bias=True, norm="none", activation="none"
    )
    conv, x = op.build([4]), images(2, 4, 11, 13)
    assert isinstance(conv, nn.Conv2d)
    half = kernel // 2
    padded = F.pad(x, (rate[1] * half, rate[1] * half, rate[0] * half, rate[0] * half))
    expected = F.conv2d(padded, conv.weight, conv.bias, stride=stride, dilation=rate, groups=2)
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize(("kernel", "stride", "rate"), [(3, 2, 1), (5, 2, 1), (7, 2, 2), (3, 3, 1), (1, 2, 1)])
@pytest.mark.parametrize("size", [(8, 9), (7, 12), (1, 2)])
@torch.no_grad()
def test_tensorflow_padding_covers_the_last_window_and_no_more(
    kernel: int, stride: int, rate: int, size: tuple[int, int]
) -> None:
    op = Conv(
        out_channels=3,
        kernel=kernel,
        stride=stride,
        rate=(rate, rate),
        norm="none",
        activation="none",
        padding="tensorflow",
    )
    conv, x = op.build([2]), images(1, 2, *size)
    assert isinstance(conv, nn.Conv2d)
    pads = []
    for length in reversed(size):
        last = (-(-length // stride) - 1) * stride  # where the last window starts, without padding
        missing = max(last + rate * (kernel - 1) + 1 - length, 0)
        pads += [missing // 2, missing - missing // 2]
    expected = F.conv2d(F.pad(x, pads), conv.weight, stride=stride, dilation=rate)
    torch.testing.assert_close(conv(x), expected)


def test_tensorflow_padding_is_the_centred_one_without_a_stride() -> None:
    convs = [
        Conv(out_channels=3, kernel=5, norm="none", activation="none", padding=padding).build([2])
        for padding in ("centred", "tensorflow")
    ]
    assert type(convs[0]) is type(convs[1]) is nn.Conv2d
    assert convs[0].padding == convs[1].padding == (2, 2)


def test_batch_norm_has_the_epsilon_of_its_name() -> None:
    for norm, epsilon in (("batch", 1e-5), ("batch_1e-3", 1e-3)):
        _, layer, _ = Conv(out_channels=3, norm=norm).build([2])  # type: ignore[arg-type, misc]
        assert layer.eps == epsilon


@torch.no_grad()
def test_norm_and_activation_follow_and_pre_activation_leads() -> None:
    op = Conv(out_channels=6, pre_activation="relu", activation="relu6")
    before, conv, norm, after = list(op.build([4]).eval())  # type: ignore[call-overload]
    x = images(1, 4, 5, 5)
    norm.weight.uniform_(-5, 5)
    expected = norm(conv(x.clamp(min=0))).clamp(0, 6)
    torch.testing.assert_close(after(norm(conv(before(x)))), expected)
    assert (expected > 0).any()


@torch.no_grad()
def test_separable_conv_is_depthwise_then_pointwise() -> None:
    module, x = SeparableConv(out_channels=6, stride=2, rate=(3, 1)).build([4]).eval(), images(2, 4, 9, 8)
    weights = [parameter for parameter in module.parameters() if parameter.ndim == 4]
    assert [tuple(weight.shape) for weight in weights] == [(4, 1, 3, 3), (6, 4, 1, 1)]
    norm = 1 / (1 + 1e-5) ** 0.5  # of fresh running statistics
    depthwise = F.relu(norm * F.conv2d(x, weights[0], stride=2, padding=(3, 1), dilation=(3, 1), groups=4))
    torch.testing.assert_close(module(x), F.relu(norm * F.conv2d(depthwise, weights[1])))


def test_shorthands() -> None:
    assert conv1x1(8) == Conv(out_channels=8, kernel=1, norm="batch", activation="relu", bias=False)
    assert atrous3x3(8, 6) == Conv(out_channels=8, kernel=3, rate=(6, 6))
    assert atrous3x3(8, (6, 3)) == Conv(out_channels=8, kernel=3, rate=(6, 3))
    assert logits1x1(19) == Conv(out_channels=19, kernel=1, bias=True, norm="none", activation="none")
    assert str(atrous3x3(8, (6, 3))) == "conv(out_channels=8, rate=6×3)"


@pytest.mark.parametrize("kind", [Conv, SeparableConv])
@pytest.mark.parametrize(
    ("field", "value"),
    [("kernel", 4), ("kernel", 0), ("stride", 0), ("rate", (1, 0)), ("out_channels", 0), ("norm", "group")],
)
def test_values_out_of_range_are_refused(kind: type[Conv], field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        kind(**{"out_channels": 8, field: value})


def test_even_kernel_says_why() -> None:
    with pytest.raises(ValueError, match="kernel is 4, but must be odd"):
        SeparableConv(out_channels=8, kernel=4)


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="groups is 4, but must divide the input's 6 and the output's 8 channels"):
        Conv(out_channels=8, groups=4).check([6])


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (16, 8), (3, 3)])
@torch.no_grad()
def test_bilinear_start_interpolates(kernel: int, stride: int) -> None:
    x = images(1, 3, 6, 7)
    up = TransposedConv(out_channels=3, kernel=kernel, stride=stride, init="bilinear").build([3])
    expected = F.interpolate(x, scale_factor=stride, mode="bilinear", align_corners=False)
    inside = (..., slice(stride, -stride), slice(stride, -stride))
    if kernel == 2 * stride:
        torch.testing.assert_close(up(x)[inside], expected[inside])
    else:  # too narrow to reach the neighbours: each pixel's own tent
        centre = (..., slice(1, None, stride), slice(1, None, stride))
        torch.testing.assert_close(up(x)[centre], x)


@torch.no_grad()
def test_transposed_conv_is_pytorchs() -> None:
    up, x = TransposedConv(out_channels=6, kernel=4, bias=True, activation="relu").build([4]), images(2, 4, 5, 3)
    weight, bias = up.parameters()
    expected = F.conv_transpose2d(x, weight, bias, stride=2, padding=1).relu()
    torch.testing.assert_close(up(x), expected)
    torch.testing.assert_close(up(x, images(1, 1, 9, 5)), expected[:, :, :9, :5])
    torch.testing.assert_close(up(x, images(1, 1, 11, 6)), F.pad(expected, (0, 0, 0, 1)))


def test_transposed_conv_refuses_a_reference_of_another_scale() -> None:
    up = TransposedConv(out_channels=4).build([4])
    with pytest.raises(ValueError, match="the second input is 12×6, but must be within a stride of 10×6"):
        up(images(1, 4, 5, 3), images(1, 4, 12, 6))


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 4)])
def test_transposed_conv_refuses_a_kernel_that_does_not_fit_the_stride(kernel: int, stride: int) -> None:
    with pytest.raises(ValueError, match=f"kernel is {kernel}, but must be stride {stride} plus an even number"):
        TransposedConv(out_channels=4, kernel=kernel, stride=stride)
