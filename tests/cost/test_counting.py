from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nasseg.cost.counting import CountingMode
from nasseg.ops.layers import bilinear

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: nn.Conv2d(8, 6, (3, 5), stride=(2, 1), padding=(1, 2)),
    "atrous, grouped": lambda: nn.Conv2d(8, 12, 3, padding=4, dilation=4, groups=4, bias=False),
    "convolution padded by name": lambda: nn.Conv2d(8, 6, 3, padding="same"),
    "transposed": lambda: nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1),
    "linear": lambda: nn.Linear(11, 5),
    "norm and activations": lambda: nn.Sequential(nn.BatchNorm2d(8), nn.ReLU6(inplace=True), nn.Sigmoid(), nn.ReLU()),
    "other activations": lambda: nn.Sequential(nn.Hardswish(), nn.GELU(), nn.LayerNorm(11)),
    "pools": lambda: nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.AdaptiveAvgPool2d((2, 3))),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_counts_and_shapes_are_pytorchs(layer: str) -> None:
    module = LAYERS[layer]().eval()
    x = torch.zeros(1, 8, 9, 11)
    with torch.no_grad(), FlopCounterMode(display=False) as pytorchs:
        expected = module(x)
    with torch.inference_mode(), CountingMode() as counter:
        found = module.to("meta")(x.to("meta"))
    assert found.shape == expected.shape
    assert counter.madds == pytorchs.get_total_flops() // 2


@pytest.mark.parametrize(
    "resize", [lambda x: bilinear(x, (5, 7)), lambda x: nn.functional.interpolate(x, scale_factor=2)]
)
def test_resized_maps_have_pytorchs_shape(resize: Callable[[Tensor], Tensor]) -> None:
    x = torch.zeros(2, 3, 9, 11)
    with torch.inference_mode(), CountingMode() as counter:
        found = resize(x.to("meta"))
    assert found.shape == resize(x).shape
    assert counter.madds == 0
