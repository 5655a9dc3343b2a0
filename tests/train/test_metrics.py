import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from nasseg.train.metrics import Metrics, MetricsCounter, boundary_region

IGNORED = 255


def score(predictions: Tensor, masks: Tensor, classes: int, boundary: bool = False, ignored: int = IGNORED) -> Metrics:
    counter = MetricsCounter(classes, ignored, torch.device("cpu"), boundary)
    for prediction, mask in zip(predictions, masks, strict=True):
        counter.update(prediction[None], mask[None])
    return counter.compute()


def random_maps(seed: int, shape: tuple[int, ...] = (3, 6, 7), classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    predictions, masks = (torch.randint(0, classes, shape, generator=generator) for _ in range(2))
    masks[torch.rand(shape, generator=generator) < 0.3] = IGNORED
    masks[0, 0, 0] = 0
    return predictions, masks


@given(st.integers(0, 1000))
def test_confusion_as_in_torchmetrics(seed: int) -> None:
    predictions, masks = random_maps(seed)
    expected = MulticlassConfusionMatrix(4, ignore_index=IGNORED)(predictions, masks)
    metrics = score(predictions, masks, 4)
    assert metrics.confusion == tuple(tuple(row) for row in expected.tolist())
    valid = masks != IGNORED
    assert metrics.pixel_accuracy == pytest.approx((predictions[valid] == masks[valid]).float().mean().item())


def test_iou_by_hand_with_an_absent_class() -> None:
    masks = torch.tensor([[[0, 0, 1, IGNORED]]])
    predictions = torch.tensor([[[0, 1, 1, 2]]])  # class 2 is predicted on an ignored pixel alone, class 3 nowhere
    metrics = score(predictions, masks, 4)
    assert metrics.class_iou == (0.5, 0.5, None, None)
    assert metrics.miou == 0.5
    assert metrics.pixel_accuracy == pytest.approx(2 / 3)
    assert metrics.confusion[0] == (1, 1, 0, 0)
    assert metrics.boundary_miou is None


def test_the_interval_is_that_of_images_drawn_anew() -> None:
    generator = torch.Generator().manual_seed(3)
    masks = torch.randint(0, 3, (12, 8, 8), generator=generator)
    wrong = torch.rand(masks.shape, generator=generator) < torch.linspace(0, 0.6, 12)[:, None, None]
    predictions = torch.where(wrong, 0, masks)
    low, high = score(predictions, masks, 3).miou_interval or (0, 0)
    drawn = [score(predictions[i], masks[i], 3).miou for i in torch.randint(12, (400, 12), generator=generator)]
    assert low == pytest.approx(sorted(drawn)[10], abs=0.02)
    assert high == pytest.approx(sorted(drawn)[-10], abs=0.02)
    assert low < score(predictions, masks, 3).miou < high


def test_equal_images_have_no_interval_around_them_and_one_has_none() -> None:
    masks = torch.tensor([[[0, 1, 1, 2]]])
    predictions = torch.tensor([[[0, 1, 2, 2]]])
    one = score(predictions, masks, 4)
    assert one.miou_interval is None
    assert score(predictions.repeat(5, 1, 1), masks.repeat(5, 1, 1), 4).miou_interval == pytest.approx((one.miou,) * 2)


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    metrics = score(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]), 2)
    assert metrics.class_iou == (0.5, 0.0)
    assert metrics.miou == 0.25


def test_ignored_index_may_be_the_next_class_or_the_first() -> None:
    predictions, masks = torch.tensor([[[1, 1, 2]]]), torch.tensor([[[0, 1, 2]]])
    assert score(predictions, masks, 3, ignored=0).class_iou == (None, 1.0, 1.0)
    assert score(predictions.clamp(max=1), masks, 2, ignored=2).class_iou == (0.0, 0.5)


def test_counts_are_exact_beyond_float32() -> None:
    counter = MetricsCounter(2, IGNORED, torch.device("cpu"))
    for pixels in (*[2**22] * 4, 1, 1):
        zeros = torch.zeros(1, 1, pixels, dtype=torch.int64)
        counter.update(zeros, zeros)
    assert counter.compute().confusion == ((2**24 + 2, 0), (0, 0))


def test_class_out_of_range() -> None:
    with pytest.raises(ValueError, match="holds class 7, but there are 2 classes"):
        score(torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 2, 2), 7), 2)


def test_nothing_labelled() -> None:
    with pytest.raises(ValueError, match="no labelled pixel"):
        score(torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 2, 2), IGNORED), 2)


def test_metrics_survive_json() -> None:
    metrics = score(*random_maps(0), 4, boundary=True)
    assert Metrics.model_validate_json(metrics.model_dump_json()) == metrics


def brute_force_region(mask: Tensor, unlabelled: Tensor, d: int) -> Tensor:
    """A binary mask minus its erosion by a (2d + 1)-square; the outside is not mask, unlabelled pixels are."""
    height, width = mask.shape
    region = torch.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            kept = all(
                0 <= v < height and 0 <= u < width and bool(mask[v, u] or unlabelled[v, u])
                for v in range(y - d, y + d + 1)
                for u in range(x - d, x + d + 1)
            )
            region[y, x] = mask[y, x] and not kept
    return region


@settings(max_examples=25)
@given(st.integers(0, 1000))
def test_boundary_iou_against_brute_force(seed: int) -> None:
    predictions, masks = (m.repeat_interleave(4, 1).repeat_interleave(4, 2) for m in random_maps(seed, (2, 3, 3), 3))
    predictions = predictions.roll(1, 2)
    expected = []
    for c in range(3):
        intersection = union = 0
        for prediction, mask in zip(predictions, masks, strict=True):
            unlabelled = mask == IGNORED
            truth = brute_force_region(mask == c, unlabelled, 1)
            predicted = brute_force_region((prediction == c) & ~unlabelled, unlabelled, 1)
            intersection += int((truth & predicted).sum())
            union += int((truth | predicted).sum())
        expected.append(intersection / union if union else None)
    metrics = score(predictions, masks, 3, boundary=True)
    assert metrics.class_boundary_iou == tuple(expected)
    assert metrics.boundary_miou == pytest.approx(
        sum(e for e in expected if e is not None) / (3 - expected.count(None))
    )


def test_boundary_width_is_two_percent_of_the_diagonal() -> None:
    labels = torch.zeros(1, 60, 80, dtype=torch.int64)  # diagonal 100, so d = 2
    labels[:, :, 40:] = 1
    region = boundary_region(labels, torch.ones_like(labels, dtype=torch.bool))[0]
    assert region[30].nonzero().flatten().tolist() == [0, 1, 38, 39, 40, 41, 78, 79]
    assert region[:, 20].nonzero().flatten().tolist() == [0, 1, 58, 59]
