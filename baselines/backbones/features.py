"""Common parts of all backbones: the maps they return, and atrous rates from an output stride."""

from collections.abc import Mapping
from typing import NamedTuple


class Features(NamedTuple):
    """The names of the nodes that hold a backbone's output, its low-level features (stride 4), and all its taps.

    `taps` has the last map at each stride from 4 on; the deepest is the output.
    """

    output: str
    low_level: str
    taps: Mapping[int, str]

    @classmethod
    def of(cls, maps: Mapping[int, str]) -> "Features":
        """From the last map at each stride, those below 4 left out."""
        taps = {stride: name for stride, name in maps.items() if stride >= 4}
        return cls(output=taps[max(taps)], low_level=taps[4], taps=taps)


MULTI_GRID = (1, 2, 4)
"""Unit rates of the last stage's three convolutions (DeepLabV3, arXiv 1706.05587, §3.2.1)."""


def refuse_multi_grid(multi_grid: bool, backbone: str) -> None:
    """Raise `ValueError` if a multi-grid is requested of a backbone that cannot have one."""
    if multi_grid:
        raise ValueError(
            f"multi_grid is true, but must be false on {backbone}: its last stage is not three convolutions"
        )


def rates_for_output_stride(strides: tuple[int, ...], output_stride: int) -> list[tuple[int, int]]:
    """Compute (stride, rate) of each layer, with strides beyond `output_stride` replaced by atrous rates.

    DeepLab (arXiv 1706.05587, §3.1): a layer that would have halved the map keeps its size, and the layers after it are
    atrous at the lost stride.
    """
    total, rate, result = 1, 1, []
    for stride in strides:
        before = rate
        if stride > 1 and total >= output_stride:
            rate *= stride
            result.append((1, before))
        else:
            total *= stride
            result.append((stride, before))
    if total != output_stride:
        raise ValueError(f"output_stride is {output_stride}, but the backbone's strides give at most {total}")
    return result
