"""Losses: cross entropy, its hardest pixels only (OHEM), and the detail loss of STDC.

Logits are (N, C, H', W') and masks (N, H, W); logits of another size are resized to the masks bilinearly. A batch whose
pixels are all ignored has zero loss and zero gradient.

Cross entropies weigh pixels with another class at most 2 pixels away along each axis by 1 + `boundary_weight`, others
by 1, and divide by the sum of the weights, so that the learning rate keeps its meaning. Source: Contour Loss (arXiv
1908.01975), with weights of 1 + 5 · (dilation − erosion) in windows of 5×5; here for many classes and not smoothed.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nasseg.train.metrics import near_another_class

OHEM_PROBABILITY = 0.7
OHEM_MIN_SHARE = 1 / 16

BOUNDARY_PIXELS = 2

DETAIL_WEIGHTS = {1: 6, 2: 3, 4: 1}
"""Tenths of the fused Laplacian by stride."""
DETAIL_THRESHOLD = 1
"""Tenths."""

Loss = Callable[[Tensor, Tensor, int], Tensor]


def resize(logits: Tensor, masks: Tensor) -> Tensor:
    """Resize logits to the masks' size, (N, C, H, W), in float32."""
    size = masks.shape[-2:]
    logits = logits.float()
    return logits if logits.shape[-2:] == size else F.interpolate(logits, size, mode="bilinear", align_corners=False)


def cross_entropy(
    logits: Tensor, masks: Tensor, ignore_index: int, class_weights: Tensor | None = None, boundary_weight: float = 0.0
) -> Tensor:
    """Compute the mean cross entropy of the pixels that are not ignored, weighted by true class and boundary.

    Raises `ValueError` if the number of weights is not the number of classes.
    """
    if class_weights is not None and len(class_weights) != logits.shape[1]:
        raise ValueError(
            f"{len(class_weights)} class weights for a network of {logits.shape[1]} classes: give one each"
        )
    losses = _cross_entropies(logits, masks, ignore_index)
    return _weighted_mean(losses, pixel_weights(masks, ignore_index, class_weights, boundary_weight))


def ohem_cross_entropy(logits: Tensor, masks: Tensor, ignore_index: int, boundary_weight: float = 0.0) -> Tensor:
    """Compute the mean cross entropy of the hard pixels: those whose true class has a probability below 0.7.

    If these are fewer than 1/16 of all pixels, the mean is over the hardest 1/16 instead (or over every pixel that is
    not ignored, if these are fewer still). Weights do not change which pixels are hard. Source: BiSeNet (arXiv
    1808.00897, section 4.1), with STDC's numbers (arXiv 2104.13188, section 4.2). Never waits for the device.
    """
    losses = _cross_entropies(logits, masks, ignore_index).flatten()
    kept_at_least = max(1, int(losses.numel() * OHEM_MIN_SHARE))
    weights = pixel_weights(masks, ignore_index, None, boundary_weight).flatten()
    hard = losses > -math.log(OHEM_PROBABILITY)
    mean_of_hard = _weighted_mean(losses, weights.where(hard, 0))
    hardest = losses.where(weights > 0, -1).topk(kept_at_least).indices
    mean_of_hardest = _weighted_mean(losses.gather(0, hardest), weights.gather(0, hardest))
    return torch.where(hard.sum() >= kept_at_least, mean_of_hard, mean_of_hardest)


def distillation(logits: Tensor, teacher_logits: Tensor, masks: Tensor, ignore_index: int) -> Tensor:
    """Compute the mean over labelled pixels of the KL divergence from a teacher's class probabilities to the network's.

    Source: pixel-wise distillation in Structured Knowledge Distillation (arXiv 1903.04197, section 3.1). Unlabelled
    pixels, which the paper's data do not have, count as little as in the other losses.
    """
    log_predicted, log_taught = (resize(scores, masks).log_softmax(dim=1) for scores in (logits, teacher_logits))
    divergences = F.kl_div(log_predicted, log_taught, reduction="none", log_target=True).sum(dim=1)
    return _weighted_mean(divergences, (masks != ignore_index).float())


def _cross_entropies(logits: Tensor, masks: Tensor, ignore_index: int) -> Tensor:
    """Compute the cross entropy of each pixel, (N, H, W); 0 where it is ignored.

    Pixels are rows, as they lie in memory where channels come last: neither logits nor their gradient are copied.
    """
    rows = resize(logits, masks).movedim(1, -1).flatten(0, 2)
    return F.cross_entropy(rows, masks.flatten(), ignore_index=ignore_index, reduction="none").view(masks.shape)


def _weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum()
    return (losses * weights).sum() / total.where(total > 0, 1)


def pixel_weights(masks: Tensor, ignore_index: int, class_weights: Tensor | None, boundary_weight: float) -> Tensor:
    """Compute the weight of each pixel in a cross entropy, (N, H, W): 0 where it is ignored."""
    valid = masks != ignore_index
    weights = valid.float()
    if class_weights is not None:
        weights = weights * class_weights[masks.where(valid, 0)]
    if boundary_weight:
        weights = weights + boundary_weight * weights * near_another_class(masks, valid, BOUNDARY_PIXELS)
    return weights


def detail_target(masks: Tensor) -> Tensor:
    """Mark the details in (N, H, W) class indices: (N, 1, H, W) of 0 and 1.

    The 3×3 Laplacians of the class indices at strides 1, 2 and 4 are binarised, resized to (H, W) by the nearest pixel,
    fused with weights 0.6, 0.3 and 0.1, and binarised again at 0.1. As in the reference implementation, the outside
    counts as class 0, and what only stride 4 sees is at the threshold, not above it.

    Source: STDC (arXiv 2104.13188, section 3.3).
    """
    labels = masks[:, None].float()
    kernel = labels.new_full((1, 1, 3, 3), -1.0)
    kernel[..., 1, 1] = 8.0
    fused = torch.zeros_like(labels)
    for stride, weight in DETAIL_WEIGHTS.items():
        # The Laplacian of integers is an integer, so exceeding the paper's 0.1 means exceeding 0.
        edges = (F.conv2d(labels, kernel, stride=stride, padding=1) > 0).float()
        fused += weight * F.interpolate(edges, labels.shape[-2:], mode="nearest")
    return (fused > DETAIL_THRESHOLD).float()


def detail_loss(logits: Tensor, masks: Tensor, ignore_index: int) -> Tensor:
    """Compute binary cross entropy plus Dice loss of (N, 1, H', W') detail logits against `detail_target(masks)`.

    Ignored pixels count in neither. Dice is taken per image, smoothed by 1.

    Source: STDC (arXiv 2104.13188, section 3.3).
    """
    valid = (masks != ignore_index)[:, None].float()
    target = detail_target(masks) * valid
    logits = resize(logits, masks)
    entropy = F.binary_cross_entropy_with_logits(logits, target, valid, reduction="sum") / valid.sum().clamp(min=1)
    probability = logits.sigmoid() * valid
    overlap = (probability * target).sum(dim=(1, 2, 3))
    dice = (2 * overlap + 1) / (probability.sum(dim=(1, 2, 3)) + target.sum(dim=(1, 2, 3)) + 1)
    return entropy + (1 - dice).mean()
