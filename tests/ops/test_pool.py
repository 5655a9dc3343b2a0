import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from nasseg.cost import op_madds
from nasseg.ops import AveragePool, GlobalPool, MaxPool, PyramidPool, StripPool, image_pool


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def windows(x: torch.Tensor, kernel: int, stride: int, reduce: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Average, for each output pixel, the part of its window that lies inside the map."""
    height, width = x.shape[-2:]
    start = 0 if kernel % 2 == 0 else -(kernel // 2)
    rows = [range(max(0, i + start), min(height, i + start + kernel)) for i in range(0, height, stride)]
    columns = [range(max(0, j + start), min(width, j + start + kernel)) for j in range(0, width, stride)]
    return torch.stack(
        [torch.stack([reduce(x[:, :, r.start : r.stop, c.start : c.stop]) for c in columns], -1) for r in rows], -2
    )


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (2, 2), (5, 3), (4, 4), (1, 2)])
@pytest.mark.parametrize("size", [(7, 6), (8, 9), (1, 1), (1, 4)])
def test_pools_equal_brute_force(kernel: int, stride: int, size: tuple[int, int]) -> None:
    x = images(2, 3, *size)
    average = AveragePool(kernel=kernel, stride=stride).build([3])(x)
    torch.testing.assert_close(average, windows(x, kernel, stride, lambda w: w.mean((2, 3))))
    maximum = MaxPool(kernel=kernel, stride=stride).build([3])(x)
    torch.testing.assert_close(maximum, windows(x, kernel, stride, lambda w: w.amax((2, 3))))
    assert maximum.shape[-2:] == (math.ceil(size[0] / stride), math.ceil(size[1] / stride))


@pytest.mark.parametrize("kind", [AveragePool, MaxPool])
def test_even_windows_must_tile_the_map(kind: type[AveragePool]) -> None:
    with pytest.raises(ValueError, match="kernel is 2, but must be odd, or equal to the stride 1"):
        kind(kernel=2)


def cells(x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The mean of each cell; a cell reaches from the floor of its start to the ceiling of its end."""
    height, width = x.shape[-2:]

    def span(index: int, parts: int, size: int) -> slice:
        return slice(index * size // parts, -(-(index + 1) * size // parts))

    return torch.stack(
        [
            torch.stack(
                [x[:, :, span(i, grid[0], height), span(j, grid[1], width)].mean((2, 3)) for j in range(grid[1])], -1
            )
            for i in range(grid[0])
        ],
        -2,
    )


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (4, 1), (8, 2), (3, 5)])
@pytest.mark.parametrize("size", [(7, 6), (3, 11), (1, 1)])
@torch.no_grad()
def test_pyramid_pool_equals_brute_force_on_any_grid(grid: tuple[int, int], size: tuple[int, int]) -> None:
    x = images(2, 3, *size)
    module = PyramidPool(out_channels=4, grid=grid).build([3]).eval()
    weight = next(module.parameters())
    projected = (F.conv2d(cells(x, grid), weight) / (1 + 1e-5) ** 0.5).relu()
    expected = F.interpolate(projected, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(module(x), expected)


def test_image_pool_is_the_pyramid_of_one_cell() -> None:
    assert image_pool(8) == PyramidPool(out_channels=8, grid=1)


def test_global_pool_is_the_mean() -> None:
    x = images(2, 3, 5, 4)
    torch.testing.assert_close(GlobalPool().build([3])(x), x.mean((2, 3), keepdim=True))


def test_grid_must_be_positive() -> None:
    with pytest.raises(ValueError, match="grid"):
        PyramidPool(out_channels=4, grid=(2, 0))


@torch.no_grad()
def test_strip_pool_gates_by_means_of_rows_and_columns() -> None:
    module = StripPool(out_channels=4).build([3]).eval()
    project, rows, columns, gate = (layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d))
    scale = (1 + 1e-5) ** -0.5  # a batch norm that has seen nothing
    x = (F.conv2d(images(2, 3, 5, 7), project.weight) * scale).relu()
    expected = torch.empty_like(x)
    for i in range(5):
        for j in range(7):
            row = sum(rows.weight[:, :, 1 + k, 0] @ x[:, :, i + k].mean(2).T for k in (-1, 0, 1) if 0 <= i + k < 5)
            column = sum(
                columns.weight[:, :, 0, 1 + k] @ x[:, :, :, j + k].mean(2).T for k in (-1, 0, 1) if 0 <= j + k < 7
            )
            logits = (scale * (row + column)).relu().T @ gate.weight[:, :, 0, 0].T + gate.bias
            expected[:, :, i, j] = x[:, :, i, j] * logits.sigmoid()
    torch.testing.assert_close(module(images(2, 3, 5, 7)), expected)


def test_strip_pool_costs_what_its_convolutions_do() -> None:
    strips = 3 * 6 * 6 * (5 + 7)
    assert op_madds(StripPool(out_channels=6), [(3, 5, 7)]) == (3 * 6 + 6 * 6) * 5 * 7 + strips
