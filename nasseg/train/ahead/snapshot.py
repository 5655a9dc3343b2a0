"""Copies of tensors, by which they are put back."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Snapshot:
    """The values of tensors at one moment, on their own devices; the memory is used again for the next moment."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._copies: list[Tensor] = []

    def take(self, tensors: Sequence[Tensor]) -> None:
        """Remember the values that these tensors have now."""
        known = len(tensors) == len(self._tensors) and all(map(_is, tensors, self._tensors))
        if not known:
            self._tensors = list(tensors)
            self._copies = [torch.empty_like(tensor) for tensor in tensors]
        _copy(self._copies, self._tensors)

    def put_back(self) -> None:
        """Give the tensors their remembered values."""
        _copy(self._tensors, self._copies)


def _is(one: Tensor, other: Tensor) -> bool:
    return one is other


@torch.no_grad()
def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy many tensors, those of a device and type in one go."""
    groups: dict[object, tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in zip(targets, sources, strict=True):
        group = groups.setdefault((target.device, target.dtype), ([], []))
        group[0].append(target)
        group[1].append(source)
    for group in groups.values():
        torch._foreach_copy_(*group)
