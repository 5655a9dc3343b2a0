"""Scoring a network on a split."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nasseg.train.device import autocast, place, sharing, to_device
from nasseg.train.distributed.group import ALONE, Group
from nasseg.train.losses import resize
from nasseg.train.metrics import Metrics, MetricsCounter

if TYPE_CHECKING:
    from nasseg.data.batches import Batch
    from nasseg.network import Network


@torch.inference_mode()
def evaluate(
    network: "Network",
    batches: "Iterable[Batch]",
    classes: int,
    ignore_index: int,
    device: torch.device,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    boundary: bool = False,
    amp: bool = True,
    group: Group = ALONE,
) -> Metrics:
    """Score a network on all batches, by its first output at the masks' size.

    With more than one scale, or with `flip`, the class probabilities of all resized and mirrored inputs are averaged.
    The network is left in the mode it was in. `amp` is the recipe's. In a group of processes, each has its own batches,
    and all return the scores of all.

    Raises `ValueError` if the network's classes are not the data's, a scale is not positive, or nothing is labelled.
    """
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales are {list(scales)}, but must be one or more positive numbers, such as 0.5,1,2")
    counter = MetricsCounter(classes, ignore_index, device, boundary)
    was_training = network.training
    place(network, device)
    network.eval()
    try:
        with sharing(device) as look:
            for batch in batches:
                masks = batch.masks.to(device, non_blocking=True)
                with autocast(device, amp):
                    scores = _scores(network, to_device(batch.inputs, device), masks, scales, flip)
                if scores.shape[1] != classes:
                    raise ValueError(
                        f"The network has {scores.shape[1]} classes, but the data has {classes}: "
                        "use a network made for it"
                    )
                counter.update(scores.argmax(dim=1), masks)
                look()
    finally:
        network.train(was_training)
    counter.add_up(group.sum)
    return counter.compute()


def _scores(
    network: "Network", inputs: dict[str, Tensor], masks: Tensor, scales: Sequence[float], flip: bool
) -> Tensor:
    """Compute logits (N, C, H, W), or the summed probabilities of several views of the inputs."""
    views = [(scale, mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,))]
    logits = (resize(_view_logits(network, inputs, scale, mirrored), masks) for scale, mirrored in views)
    if len(views) == 1:
        return next(logits)
    total = next(logits).softmax(dim=1)
    for more in logits:
        total += more.softmax(dim=1)
    return total


def _view_logits(network: "Network", inputs: dict[str, Tensor], scale: float, mirrored: bool) -> Tensor:
    if scale != 1:
        inputs = {name: _rescale(value, scale) for name, value in inputs.items()}
    if mirrored:
        inputs = {name: value.flip(-1) for name, value in inputs.items()}
    logits = next(iter(network.outputs(inputs).values()))
    return logits.flip(-1) if mirrored else logits


def _rescale(value: Tensor, scale: float) -> Tensor:
    size = [max(1, round(length * scale)) for length in value.shape[-2:]]
    return F.interpolate(value, size, mode="bilinear", align_corners=False, antialias=scale < 1)
