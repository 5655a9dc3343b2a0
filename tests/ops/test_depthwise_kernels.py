"""The Triton kernels equal PyTorch's convolutions.

Without a GPU, Triton's interpreter runs them: `pip install triton`, then
`TRITON_INTERPRET=1 pytest tests/ops/test_depthwise_kernels.py`.
"""

import os

import pytest
import torch
import torch.nn.functional as F

from nasseg.ops.conv import conv_layer

if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a CUDA device, or Triton and TRITON_INTERPRET=1", allow_module_level=True)

from nasseg.ops import depthwise_kernels as kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(
    ("shape", "kernel", "rate"),
    [
        ((2, 5, 9, 7), 3, (1, 1)),
        ((2, 5, 9, 7), 3, (2, 3)),
        ((1, 130, 4, 20), 3, (6, 1)),
        ((2, 4, 3, 5), 3, (18, 15)),
        ((1, 16, 9, 17), 5, (2, 1)),
        ((1, 3, 6, 4), 7, (1, 2)),
    ],
)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_they_equal_pytorchs(shape, kernel, rate, layout):
    x = torch.randn(shape, dtype=torch.float64, device=DEVICE).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(shape[1], 1, kernel, kernel, dtype=torch.float64, device=DEVICE, requires_grad=True)
    padding = [step * (kernel // 2) for step in rate]
    expected = F.conv2d(x, weight, None, 1, padding, rate, shape[1])
    gradient = torch.randn_like(expected)
    expected.backward(gradient)
    with torch.no_grad():
        found = {
            "output": kernels.centred(x, weight, rate),
            "gradient of the input": kernels.centred(gradient, weight.flip(2, 3), rate),
            "gradient of the weight": kernels.weight_gradient(x, gradient, kernel, rate),
        }
    for tensor, wanted in zip(found.values(), (expected, x.grad, weight.grad), strict=True):
        torch.testing.assert_close(tensor, wanted, rtol=1e-11, atol=1e-11)
    assert found["output"].is_contiguous(memory_format=torch.channels_last)


def test_half_precision_is_summed_up_in_single():
    x, gradient = (torch.randn(2, 8, 12, 12, device=DEVICE).half() for _ in range(2))
    weight = torch.randn(8, 1, 3, 3, device=DEVICE).half()
    expected = F.conv2d(x.double(), weight.double(), None, 1, 2, 2, 8)
    found = kernels.centred(x, weight, (2, 2))
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.double(), expected, rtol=2**-10, atol=1e-5)
    summed = kernels.weight_gradient(x, gradient, 3, (2, 2))
    wanted = kernels.weight_gradient(x.double(), gradient.double(), 3, (2, 2))
    torch.testing.assert_close(summed.double(), wanted, rtol=2**-10, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_layer_trains_on_a_gpu_as_on_a_cpu(dtype):
    layer = conv_layer(24, 24, 3, rate=(6, 3), groups=24, bias=True).to(dtype)
    input = torch.randn(2, 24, 20, 30, dtype=dtype)
    found = {}
    for device in ("cpu", "cuda"):
        layer.to(device).zero_grad()
        given = input.to(device).requires_grad_()
        output = layer(given)
        (output**2).sum().backward()
        tensors = [output.detach(), given.grad, *(parameter.grad for parameter in layer.parameters())]
        found[device] = [tensor.cpu().double() for tensor in tensors]
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    for made, expected in zip(found["cuda"], found["cpu"], strict=True):
        torch.testing.assert_close(made, expected, rtol=tolerance, atol=tolerance)
