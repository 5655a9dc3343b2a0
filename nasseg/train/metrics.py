"""Segmentation scores, from integer counts over a whole split."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor

BOUNDARY_WIDTH_SHARE = 0.02
"""Of the image's diagonal."""


class Metrics(BaseModel):
    """Scores of a whole split. A class absent from truth and prediction has no IoU (None) and does not enter the mean.

    `confusion[t][p]` counts the pixels of true class t that were predicted as p. Boundary IoU: Cheng et al.
    (arXiv 2103.16562), per class over the split; None if not measured.
    """

    model_config = ConfigDict(frozen=True)

    miou: float
    class_iou: tuple[float | None, ...]
    pixel_accuracy: float
    confusion: tuple[tuple[int, ...], ...]
    boundary_miou: float | None = None
    class_boundary_iou: tuple[float | None, ...] | None = None


class MetricsCounter:
    """A counter of pixels, batch by batch, from which `compute` derives scores. Ignored pixels are left out first."""

    def __init__(self, classes: int, ignore_index: int, device: torch.device, boundary: bool = False) -> None:
        self.classes = classes
        self.ignore_index = ignore_index
        self.boundary = boundary
        self._confusion = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        self._boundary_confusion = torch.zeros(classes + 1, classes + 1, dtype=torch.int64, device=device)

    def update(self, predictions: Tensor, masks: Tensor) -> None:
        """Count a batch: predicted and true class indices, both (N, H, W).

        Raises `ValueError` if a true class is out of range.
        """
        valid = masks != self.ignore_index
        truth, predicted = masks[valid], predictions[valid]
        if truth.numel() and not 0 <= int(truth.min()) <= int(truth.max()) < self.classes:
            raise ValueError(
                f"A mask holds class {int(truth.max())}, but there are {self.classes} classes and {self.ignore_index} "
                "is ignored: correct the mask or the list of classes"
            )
        self._confusion += _confusion(truth, predicted, self.classes)
        if self.boundary:
            elsewhere = self.classes
            truth = masks.where(boundary_region(masks, valid), elsewhere)[valid]
            predicted = predictions.where(boundary_region(predictions, valid), elsewhere)[valid]
            self._boundary_confusion += _confusion(truth, predicted, self.classes + 1)

    def add_up(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replace the counts by their `total` over several counters of parts of a split."""
        self._confusion = total(self._confusion)
        self._boundary_confusion = total(self._boundary_confusion)

    def compute(self) -> Metrics:
        """Score all pixels counted so far; raises `ValueError` if there were none."""
        confusion = self._confusion.cpu()
        total = int(confusion.sum())
        if total == 0:
            raise ValueError("The split has no labelled pixel to score: every pixel is ignored, or there are no images")
        class_iou = _iou(confusion)
        class_boundary_iou = _iou(self._boundary_confusion.cpu())[:-1] if self.boundary else None
        return Metrics(
            miou=_mean(class_iou),
            class_iou=class_iou,
            pixel_accuracy=int(confusion.trace()) / total,
            confusion=tuple(tuple(row) for row in confusion.tolist()),
            boundary_miou=_mean(class_boundary_iou) if class_boundary_iou is not None else None,
            class_boundary_iou=class_boundary_iou,
        )


def boundary_region(labels: Tensor, valid: Tensor) -> Tensor:
    """Mark the pixels within d of another class or of the image border, in (N, H, W) class indices.

    d is 2 % of the image's diagonal, at least one pixel, measured along the axes (the larger of both), so this is each
    class's mask minus its erosion by a square of side 2d + 1 (Cheng et al., arXiv 2103.16562, section 4).
    """
    height, width = labels.shape[-2:]
    d = max(1, round(BOUNDARY_WIDTH_SHARE * (height**2 + width**2) ** 0.5))
    near = near_another_class(labels, valid, d)
    frame = torch.ones_like(near)
    frame[:, d:-d, d:-d] = False
    return near | frame


def near_another_class(labels: Tensor, valid: Tensor, pixels: int) -> Tensor:
    """Mark the valid pixels with another class at most `pixels` away along each axis, in (N, H, W) class indices.

    All classes at once: a window holds another class exactly if its least or its greatest label differs from the
    centre's. Invalid pixels do not count as another class: the edge of an unlabelled area is not a contour.
    """
    values = labels.float()[:, None]
    infinity = values.new_tensor(torch.inf)
    greatest = _window_maximum(values.where(valid[:, None], -infinity), pixels)
    least = -_window_maximum(-values.where(valid[:, None], infinity), pixels)
    return ((greatest != values) | (least != values))[:, 0] & valid


def _window_maximum(values: Tensor, d: int) -> Tensor:
    columns = F.max_pool2d(values, (2 * d + 1, 1), stride=1, padding=(d, 0))
    return F.max_pool2d(columns, (1, 2 * d + 1), stride=1, padding=(0, d))


def _confusion(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    return torch.bincount(truth * classes + predicted, minlength=classes**2).view(classes, classes)


def _iou(confusion: Tensor) -> tuple[float | None, ...]:
    intersections = confusion.diagonal()
    unions = confusion.sum(dim=0) + confusion.sum(dim=1) - intersections
    return tuple(i / u if u else None for i, u in zip(intersections.tolist(), unions.tolist(), strict=True))


def _mean(class_iou: tuple[float | None, ...]) -> float:
    """Average the classes present; 0 if there is none, as for boundaries in a split without labelled border pixels."""
    present = [iou for iou in class_iou if iou is not None]
    return sum(present) / max(1, len(present))
