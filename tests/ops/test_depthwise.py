"""A depthwise convolution trains as PyTorch's own does, however its gradients are made."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nasseg.ops.conv import conv_layer
from nasseg.ops.depthwise import convolve


@given(
    kernel=st.sampled_from((1, 3, 5, 7)),
    stride=st.integers(1, 3),
    rate=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    padding=st.sampled_from(("centred", "tensorflow")),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    bias=st.booleans(),
    last=st.booleans(),
)
def test_gradients_are_those_of_pytorch(kernel, stride, rate, padding, size, bias, last):
    layer = conv_layer(4, 4, kernel, stride=stride, rate=rate, groups=4, bias=bias, padding=padding).double()
    layout = torch.channels_last if last else torch.contiguous_format
    values = torch.randn(2, 4, *size, dtype=torch.float64).contiguous(memory_format=layout)

    def trained():
        input = values.clone(memory_format=torch.preserve_format).requires_grad_()
        layer.zero_grad()
        output = layer(input)
        ((output + 0.1) ** 2).sum().backward()
        return [output.detach(), input.grad, *(parameter.grad for parameter in layer.parameters())]

    own = trained()
    layer.eval()
    for made, expected in zip(own, trained(), strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(1, 1), (12, 14), (13, 15)])
def test_an_activation_behind_it_works_in_place(size):
    layer = conv_layer(4, 4, 3, rate=(7, 7), groups=4, bias=False)
    input = torch.randn(2, 4, *size)

    def gradient(activation):
        layer.zero_grad()
        activation(layer(input)).sum().backward()
        return layer.weight.grad.clone()

    torch.testing.assert_close(gradient(nn.ReLU(inplace=True)), gradient(nn.ReLU()))


@given(
    kernel=st.sampled_from((3, 5, 7)),
    stride=st.integers(1, 2),
    rate=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    images=st.integers(1, 2),
    bias=st.booleans(),
)
def test_inference_is_that_of_pytorch(kernel, stride, rate, size, images, bias):
    layer = conv_layer(4, 4, kernel, stride=stride, rate=rate, groups=4, bias=bias).double().eval()
    input = torch.randn(images, 4, *size, dtype=torch.float64)
    expected = layer(input).detach()
    with torch.inference_mode():
        torch.testing.assert_close(layer(input), expected, rtol=1e-12, atol=1e-12)


def test_what_is_exported_has_pytorchs_convolution():
    layer = conv_layer(4, 4, 7, rate=(4, 4), groups=4, bias=True).eval()
    input = torch.randn(1, 4, 12, 15)
    with torch.inference_mode():
        operators = [node.target for node in torch.export.export(layer, (input,)).graph.nodes]
        expected = layer(input)
    assert [op for op in operators if callable(op)] == [torch.ops.aten.conv2d.default]
    torch.testing.assert_close(layer(input).detach(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "rate"), [(7, 1, 1), (3, 1, 2), (5, 2, 1)])
def test_mixed_precision_is_that_of_a_convolution(kernel, stride, rate):
    layer = conv_layer(8, 8, kernel, stride=stride, rate=(rate, rate), groups=8, bias=True)
    layer.weight.data = layer.weight.data.bfloat16().float()
    input = torch.randn(2, 8, 16, 16).bfloat16().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(input)
    assert output.dtype == torch.bfloat16
    output.float().square().sum().backward()
    found = [input.grad.clone(), layer.weight.grad.clone()]
    input.grad = None
    layer.zero_grad()
    layer.eval()(input).square().sum().backward()
    for made, expected in zip(found, [input.grad, layer.weight.grad], strict=True):
        assert made.dtype == torch.float32
        torch.testing.assert_close(made, expected, rtol=0.02, atol=0.02 * expected.abs().max().item())


def test_only_wanted_gradients_are_made():
    layer = conv_layer(3, 3, 3, rate=(2, 2), groups=3, bias=False)
    input = torch.randn(1, 3, 9, 9, requires_grad=True)
    layer.weight.requires_grad_(False)
    layer(input).sum().backward()
    assert layer.weight.grad is None
    assert input.grad is not None
    layer.requires_grad_(True)
    layer(input.detach()).sum().backward()
    assert layer.weight.grad is not None


def test_other_convolutions_are_left_alone():
    layer = nn.Conv2d(4, 8, 3, padding=1, groups=2)
    input = torch.randn(1, 4, 6, 6)
    output = convolve(layer, input, (1, 1))
    assert torch.equal(output, F.conv2d(input, layer.weight, layer.bias, 1, 1, 1, 2))
    assert "Depthwise" not in type(output.grad_fn).__name__
