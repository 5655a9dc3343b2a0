import pytest
import torch
from torch import Tensor, nn

from nasseg import plugins
from nasseg.cost.inference import inference_form, random_inputs

CPU = torch.device("cpu")


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]


def randomise(module: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights as after training."""
    generator = torch.Generator().manual_seed(0)
    for norm in norms(module):
        norm.running_mean.normal_(std=0.1, generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
        norm.weight.data.uniform_(0.5, 1.5, generator=generator)
        norm.bias.data.normal_(std=0.1, generator=generator)
    return module


@pytest.mark.parametrize(
    "name",
    [
        "stdc1",
        "unetplusplus",
        "deeplabv3plus-mobilenetv2",
        "deeplabv3plus-resnet50",
        "dpc",
        pytest.param("auto_deeplab-s", marks=pytest.mark.slow),
    ],
)
@torch.inference_mode()
def test_it_computes_the_same_without_batch_norm(name: str) -> None:
    torch.manual_seed(0)
    network = randomise(plugins.architecture(name).inference().network()).eval()
    inputs = random_inputs([(1, network.architecture.channels("image"), 32, 64)], CPU, torch.float32)
    form = inference_form(network, inputs)
    expected = network(*inputs)
    torch.testing.assert_close(form(*inputs), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert norms(network)
    assert not norms(form)


def test_the_network_itself_is_left_alone() -> None:
    network = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    form = inference_form(network, random_inputs([(2, 3, 8, 8)], CPU, torch.float32))
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert network.training
    assert not form.training
    assert not any(parameter.requires_grad for parameter in form.parameters())


class Twice(nn.Module):
    """A convolution whose output is read by a batch norm and by something else, or by two norms."""

    def __init__(self, second: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.second = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), second

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + self.second(y)  # type: ignore[no-any-return]


class Shared(nn.Module):
    """One convolution that two norms follow in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.conv(self.first(self.conv(x))))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "module",
    [
        Twice(nn.Identity()),
        Twice(nn.BatchNorm2d(4)),
        Shared(),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
        nn.Sequential(nn.ConvTranspose2d(3, 4, 2), nn.BatchNorm2d(4)),
    ],
    ids=["read twice", "two norms", "used twice", "relu between", "transposed"],
)
@torch.inference_mode()
def test_what_cannot_be_folded_stays(module: nn.Module) -> None:
    inputs = random_inputs([(1, 3, 5, 7)], CPU, torch.float32)
    form = inference_form(randomise(module), inputs)
    assert len(norms(form)) == len(norms(module)) > 0
    torch.testing.assert_close(form(*inputs), module.eval()(*inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_have_the_inputs_format_and_channels_last(dtype: torch.dtype) -> None:
    inputs = random_inputs([(1, 3, 8, 8)], CPU, dtype)
    form = inference_form(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), inputs)
    weight, bias = form[0].weight, form[0].bias  # type: ignore[index]
    assert weight.dtype == bias.dtype == inputs[0].dtype == dtype
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert inputs[0].is_contiguous(memory_format=torch.channels_last)
