"""Scoring a network on a split."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nasseg.network import Segmenter
from nasseg.ops.layers import bilinear
from nasseg.train.device import autocast, place, sharing, to_device
from nasseg.train.distributed.group import ALONE, Group
from nasseg.train.metrics import Metrics, MetricsCounter

if TYPE_CHECKING:
    from nasseg.data.batches import Batch


@torch.inference_mode()
def evaluate(
    network: Segmenter,
    batches: "Iterable[Batch]",
    classes: int,
    ignore_index: int,
    device: torch.device,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    boundary: bool = False,
    amp: bool = True,
    window: tuple[int, int] | None = None,
    group: Group = ALONE,
) -> Metrics:
    """Score a network on all batches, by its first output at the masks' size.

    `scales`, `flip` and `window` are as for `class_scores`. The network is left in the mode it was in. `amp` is the
    recipe's. In a group of processes, each has its own batches, and all return the scores of all.

    Raises `ValueError` if the network's classes are not the data's, a scale is not positive, or nothing is labelled.
    """
    counter = MetricsCounter(classes, ignore_index, device, boundary)
    was_training = network.training
    place(network, device)
    network.eval()
    try:
        with sharing(device) as look:
            for batch in batches:
                masks = batch.masks.to(device, non_blocking=True)
                with autocast(device, amp):
                    inputs, size = to_device(batch.inputs, device), (masks.shape[-2], masks.shape[-1])
                    scores = class_scores(network, inputs, size, scales, flip, window)
                if scores.shape[1] != classes:
                    raise ValueError(
                        f"The network has {scores.shape[1]} classes, but the data has {classes}: "
                        "use a network made for it"
                    )
                counter.update(scores.argmax(dim=1), masks)
                look()
    finally:
        network.train(was_training)
    if group.size > 1:
        counter.add_up(group.sum)
    return counter.compute()


def class_scores(
    network: Segmenter,
    inputs: dict[str, Tensor],
    size: tuple[int, int],
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: tuple[int, int] | None = None,
) -> Tensor:
    """Compute logits (N, C, H, W) at `size`, or the summed class probabilities of several views of the inputs.

    There are several if there is more than one scale, or with `flip`, which adds mirrored ones. With `window` (height,
    width), each view is seen in windows of that size that overlap by a third, and their logits are averaged. Raises
    `ValueError` if a scale is not positive.
    """
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise ValueError(f"scales are {list(scales)}, but must be one or more positive numbers, such as 0.5,1,2")
    views = [(scale, mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,))]
    logits = (bilinear(_view_logits(network, inputs, *view, window).float(), size) for view in views)
    if len(views) == 1:
        return next(logits)
    total = next(logits).softmax(dim=1)
    for more in logits:
        total += more.softmax(dim=1)
    return total


def _view_logits(
    network: Segmenter, inputs: dict[str, Tensor], scale: float, mirrored: bool, window: tuple[int, int] | None
) -> Tensor:
    if scale != 1:
        inputs = {name: _rescale(value, scale) for name, value in inputs.items()}
    if mirrored:
        inputs = {name: value.flip(-1) for name, value in inputs.items()}
    logits = _first(network.outputs(inputs)) if window is None else _in_windows(network, inputs, window)
    return logits.flip(-1) if mirrored else logits


def _in_windows(network: Segmenter, inputs: dict[str, Tensor], window: tuple[int, int]) -> Tensor:
    """Average the logits of overlapping windows, at the size of the network's only input, its image."""
    ((name, image),) = inputs.items()
    total, count = torch.zeros(1), torch.zeros(image.shape[-2:], device=image.device)
    for rows in _intervals(image.shape[-2], window[0]):
        for columns in _intervals(image.shape[-1], window[1]):
            seen = image[..., rows, columns]
            logits = bilinear(_first(network.outputs({name: seen})).float(), (seen.shape[-2], seen.shape[-1]))
            if total.ndim == 1:
                total = logits.new_zeros(*logits.shape[:2], *image.shape[-2:])
            total[..., rows, columns] += logits
            count[rows, columns] += 1
    return total / count


def _intervals(length: int, window: int) -> list[slice]:
    """Cover an axis with windows that overlap by a third of their length at least, the last one at its end."""
    window = min(window, length)
    number = 1 + -(-(length - window) // max(1, window * 2 // 3))
    starts = [(length - window) * place // max(1, number - 1) for place in range(number)]
    return [slice(start, start + window) for start in starts]


def _first(outputs: Mapping[str, Tensor]) -> Tensor:
    return next(iter(outputs.values()))


def _rescale(value: Tensor, scale: float) -> Tensor:
    size = [max(1, round(length * scale)) for length in value.shape[-2:]]
    return F.interpolate(value, size, mode="bilinear", align_corners=False, antialias=scale < 1)
