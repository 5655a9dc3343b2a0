"""Segmentation scores, from integer counts over a whole split."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor

BOUNDARY_WIDTH_SHARE = 0.02
"""Of the image's diagonal."""
RESAMPLES = 1000
CONFIDENCE = 0.95


class Metrics(BaseModel):
    """Scores of a whole split. A class absent from truth and prediction has no IoU (None) and does not enter the mean.

    `confusion[t][p]` counts the pixels of true class t that were predicted as p. Boundary IoU: Cheng et al.
    (arXiv 2103.16562), per class over the split; None if not measured. `miou_interval` is the 95 % interval of the mIoU
    when the split's images are drawn anew (percentile bootstrap, Efron 1979); None for a single image. Frames of one
    drive resemble each other, so that of a video is too narrow.
    """

    model_config = ConfigDict(frozen=True)

    miou: float
    class_iou: tuple[float | None, ...]
    pixel_accuracy: float
    confusion: tuple[tuple[int, ...], ...]
    boundary_miou: float | None = None
    class_boundary_iou: tuple[float | None, ...] | None = None
    miou_interval: tuple[float, float] | None = None


class MetricsCounter:
    """A counter of pixels, batch by batch, from which `compute` derives scores. Ignored pixels are left out first."""

    def __init__(self, classes: int, ignore_index: int, device: torch.device, boundary: bool = False) -> None:
        self.classes = classes
        self.ignore_index = ignore_index
        self.boundary = boundary
        self._confusion = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        self._by_image: list[Tensor] = []
        self._boundary_confusion = torch.zeros(classes + 1, classes + 1, dtype=torch.int64, device=device)
        self._least = self._greatest = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, predictions: Tensor, masks: Tensor) -> None:
        """Count a batch: predicted and true class indices, both (N, H, W). Never waits for the device."""
        valid = masks != self.ignore_index
        truth = masks.where(valid, 0)
        least, greatest = truth.aminmax()
        self._least, self._greatest = torch.minimum(self._least, least), torch.maximum(self._greatest, greatest)
        confusions = _confusions(truth, predictions, valid, self.classes)
        self._confusion += confusions.sum(dim=0)
        self._by_image.append(_areas(confusions))
        if self.boundary:
            elsewhere = self.classes
            truth = truth.where(boundary_region(masks, valid), elsewhere)
            predicted = predictions.where(boundary_region(predictions, valid), elsewhere)
            self._boundary_confusion += _confusions(truth, predicted, valid, self.classes + 1).sum(dim=0)

    def add_up(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replace the counts by their `total` over several counters of parts of a split; the interval is left out."""
        self._by_image = []
        self._confusion = total(self._confusion)
        self._boundary_confusion = total(self._boundary_confusion)

    def compute(self) -> Metrics:
        """Score all pixels counted so far; raises `ValueError` if there were none, or a true class is out of range."""
        least, greatest = int(self._least), int(self._greatest)
        if least < 0 or greatest >= self.classes:
            raise ValueError(
                f"A mask holds class {least if least < 0 else greatest}, but there are {self.classes} classes and "
                f"{self.ignore_index} is ignored: correct the mask or the list of classes"
            )
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
            miou_interval=_interval(torch.cat(self._by_image).cpu()) if self._by_image else None,
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


def _confusions(truth: Tensor, predicted: Tensor, valid: Tensor, classes: int) -> Tensor:
    """Count (true class, predicted class) of the valid pixels of each image: (N, classes, classes).

    The others are counted in a place of their own: a GPU would have to tell how many are left without them, and so it
    would for `bincount`.
    """
    image = torch.arange(len(truth), device=truth.device)[:, None, None]
    last = len(truth) * classes**2
    counted = valid & (truth >= 0) & (truth < classes)
    cells = ((image * classes + truth) * classes + predicted).where(counted, last).flatten()
    counts = torch.zeros(last + 1, dtype=torch.int64, device=truth.device)
    return counts.scatter_add_(0, cells, torch.ones_like(cells))[:last].view(-1, classes, classes)


def _areas(confusions: Tensor) -> Tensor:
    """Intersection and union of each class, (N, 2, classes), all that the IoU of some images needs."""
    intersections = confusions.diagonal(dim1=1, dim2=2)
    return torch.stack([intersections, confusions.sum(dim=1) + confusions.sum(dim=2) - intersections], dim=1)


def _interval(areas: Tensor) -> tuple[float, float] | None:
    """Draw the images anew, with replacement, again and again: the middle 95 % of the mIoU."""
    images = len(areas)
    if images < 2:
        return None
    drawn = torch.randint(images, (RESAMPLES, images), generator=torch.Generator().manual_seed(0))
    times = torch.zeros(RESAMPLES, images, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
    intersections, unions = (times @ areas.double().flatten(1)).view(RESAMPLES, 2, -1).unbind(dim=1)
    mious = (intersections / unions).nanmean(dim=1).nan_to_num(0)  # 0/0: a class that none of the drawn images has
    tail = (1 - CONFIDENCE) / 2
    low, high = mious.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _iou(confusion: Tensor) -> tuple[float | None, ...]:
    intersections = confusion.diagonal()
    unions = confusion.sum(dim=0) + confusion.sum(dim=1) - intersections
    return tuple(i / u if u else None for i, u in zip(intersections.tolist(), unions.tolist(), strict=True))


def _mean(class_iou: tuple[float | None, ...]) -> float:
    """Average the classes present; 0 if there is none, as for boundaries in a split without labelled border pixels."""
    present = [iou for iou in class_iou if iou is not None]
    return sum(present) / max(1, len(present))
