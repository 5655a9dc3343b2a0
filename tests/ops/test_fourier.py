import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasseg.cost import op_madds
from nasseg.ops import GlobalFilter
from nasseg.ops.fourier import fourier_filter

SIZES = [(6, 8), (5, 7), (6, 7), (5, 8), (1, 1), (1, 5), (4, 1), (2, 2), (12, 15)]


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value_at(filter: Tensor, down: float, across: float) -> Tensor:
    """The filter (2, C, h, w) at a frequency in cycles per pixel, bilinear: (2, C)."""
    rows, columns = filter.shape[2:]
    y, x = (down + 0.5) * (rows - 1), across * 2 * (columns - 1)
    return sum(
        (  # type: ignore[return-value]
            filter[:, :, i, j] * max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j))
            for i in range(rows)
            for j in range(columns)
        ),
        torch.zeros(2, filter.shape[1], dtype=filter.dtype),
    )


@pytest.mark.parametrize("grid", [(7, 5), (1, 1), (15, 8)])
@pytest.mark.parametrize("size", SIZES)
def test_a_filter_equals_the_product_of_spectra(size: tuple[int, int], grid: tuple[int, int]) -> None:
    x, filter = images(2, 3, *size), images(2, 3, *grid, seed=1)
    down, across = ([k / n for k in range(n)] for n in size)
    down, across = [f - (f >= 0.5) for f in down], across[: size[1] // 2 + 1]
    response = torch.stack([torch.stack([value_at(filter, v, u) for u in across], -1) for v in down], -2)
    expected = torch.fft.irfft2(torch.fft.rfft2(x) * torch.complex(*response), s=size)
    torch.testing.assert_close(fourier_filter(x, filter), expected)


@pytest.mark.parametrize("size", SIZES)
def test_a_filter_of_ones_is_the_identity(size: tuple[int, int]) -> None:
    x, ones = images(2, 3, *size), torch.stack([torch.ones(3, 5, 4), torch.zeros(3, 5, 4)])
    torch.testing.assert_close(fourier_filter(x, ones), x)


def test_frequency_zero_is_the_mean() -> None:
    filter = torch.zeros(2, 3, 13, 7)
    filter[0, :, 6, 0] = 1
    x = images(2, 3, 5, 4)
    torch.testing.assert_close(fourier_filter(x, filter), x.mean((2, 3), keepdim=True).expand_as(x))


@torch.no_grad()
def test_the_operator_adds_the_filtered_map_and_moves_with_its_input() -> None:
    module = GlobalFilter(out_channels=4, grid=(5, 7)).build([3]).double().eval()
    (filter,) = (p for p in module.parameters() if p.ndim == 4 and p.shape[0] == 2)
    nn.init.normal_(filter)
    x = images(2, 3, 6, 5)
    projected = module.get_submodule("project")(x)
    torch.testing.assert_close(module(x), projected + fourier_filter(projected, 35**0.5 * filter))
    torch.testing.assert_close(module(x.roll((2, -1), (2, 3))), module(x).roll((2, -1), (2, 3)))


@torch.no_grad()
def test_it_starts_near_the_identity() -> None:
    torch.manual_seed(0)
    module = GlobalFilter(out_channels=64).build([64]).eval()
    x = images(1, 64, 12, 15).float()
    projected = module.get_submodule("project")(x)
    # Drawn with a deviation of 0.02 in both parts, and made smaller by the interpolation.
    assert 0.005 < ((module(x) - projected).norm() / projected.norm()).item() < 0.03


def test_it_learns_at_the_pace_of_a_convolution() -> None:
    """A loss falls by the learning rate times the gradient's squared norm, so compare that of a kernel of 13×15."""
    module = GlobalFilter(out_channels=1, grid=(13, 15)).build([1])
    module.set_submodule("project", nn.Identity())
    x, wanted = images(1, 1, 13, 15).float(), images(1, 1, 13, 15, seed=1).float()
    (module(x) * wanted).sum().backward()
    (filter,) = module.parameters()
    kernel = torch.zeros(1, 1, 13, 15, requires_grad=True)
    (F.conv2d(F.pad(x, (7, 7, 6, 6), mode="circular"), kernel) * wanted).sum().backward()
    assert filter.grad is not None
    assert kernel.grad is not None
    assert 1 / 3 < (filter.grad.square().sum() / kernel.grad.square().sum()).item() < 3


def test_mixed_precision_leaves_the_transform_in_float32() -> None:
    x, filter = images(2, 3, 6, 5).float(), images(2, 3, 5, 4, seed=1).float()
    exact = fourier_filter(x, filter)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fourier_filter(x, filter), exact)
        assert GlobalFilter(out_channels=4).build([3])(x).dtype == torch.bfloat16


def test_the_grid_has_frequency_zero() -> None:
    with pytest.raises(ValueError, match="grid is 8×15, but must be odd, so that frequency 0 is on it"):
        GlobalFilter(out_channels=4, grid=(8, 15))
    assert GlobalFilter.model_validate({"out_channels": 4, "grid": 9}).grid == (9, 9)


@pytest.mark.parametrize(("height", "width"), [(12, 15), (7, 4)])
def test_it_costs_what_its_matrix_products_do(height: int, width: int) -> None:
    given, channels, half = 5, 6, width // 2 + 1
    across = height * 2 * half * width
    down = 2 * height * 2 * height * half
    expected = channels * (given * height * width + 2 * (across + down))
    assert op_madds(GlobalFilter(out_channels=channels), [(given, height, width)]) == expected


def test_gradients_equal_differences() -> None:
    x, filter = images(1, 2, 3, 4).requires_grad_(), images(2, 2, 3, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(fourier_filter, [x, filter])
