import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nasseg.train.losses import cross_entropy, detail_loss, detail_target, distillation, ohem_cross_entropy

IGNORED = 255


def example(seed: int, ignored_share: float = 0.3, sharpness: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(2, 4, 5, 6, generator=generator)
    masks = torch.randint(0, 4, (2, 5, 6), generator=generator)
    masks[torch.rand(2, 5, 6, generator=generator) < ignored_share] = IGNORED
    return logits, masks


def pixel_losses(logits: Tensor, masks: Tensor) -> list[tuple[int, float]]:
    """(true class, loss) of each pixel that is not ignored, one by one."""
    found = []
    for n, y, x in torch.cartesian_prod(*(torch.arange(size) for size in masks.shape)).tolist():
        true_class = int(masks[n, y, x])
        if true_class != IGNORED:
            scores = [math.exp(score) for score in logits[n, :, y, x].tolist()]
            found.append((true_class, -math.log(scores[true_class] / sum(scores))))
    return found


@given(st.integers(0, 1000))
def test_cross_entropy_is_the_mean_over_labelled_pixels(seed: int) -> None:
    logits, masks = example(seed)
    losses = [loss for _, loss in pixel_losses(logits, masks)]
    assert cross_entropy(logits, masks, IGNORED).item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_class_weights_as_in_pytorch() -> None:
    logits, masks = example(0)
    weights = torch.tensor([0.5, 0.0, 2.0, 1.0])
    expected = F.cross_entropy(logits, masks, weights, ignore_index=IGNORED)
    torch.testing.assert_close(cross_entropy(logits, masks, IGNORED, weights), expected)


def test_wrong_number_of_class_weights() -> None:
    logits, masks = example(0)
    with pytest.raises(ValueError, match="2 class weights for a network of 4 classes: give one each"):
        cross_entropy(logits, masks, IGNORED, torch.ones(2))


def test_smaller_logits_are_resized_to_the_masks() -> None:
    logits, masks = example(1)
    small = logits[:, :, ::2, ::2]
    resized = F.interpolate(small, (5, 6), mode="bilinear", align_corners=False)
    for loss in (cross_entropy, ohem_cross_entropy):
        assert torch.equal(loss(small, masks, IGNORED), loss(resized, masks, IGNORED))


@pytest.mark.parametrize("name", ["cross_entropy", "weighted", "boundary", "ohem", "detail"])
def test_all_ignored_costs_nothing(name: str) -> None:
    losses = {
        "cross_entropy": cross_entropy,
        "weighted": lambda *arguments: cross_entropy(*arguments, torch.ones(4)),
        "boundary": partial(cross_entropy, boundary_weight=5.0),
        "ohem": ohem_cross_entropy,
        "detail": detail_loss,
    }
    logits = torch.randn(2, 1 if name == "detail" else 4, 3, 3, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    loss = losses[name](logits, torch.full((2, 6, 6), IGNORED), IGNORED)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.eq(0).all()


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.3, 0.95]), st.sampled_from([0.1, 2.0, 8.0, 40.0]))
def test_ohem_against_brute_force(seed: int, ignored_share: float, sharpness: float) -> None:
    logits, masks = example(seed, ignored_share, sharpness)
    if sharpness == 8.0:  # nearly all pixels right: the share decides, not the threshold
        logits += 30 * F.one_hot(masks.where(masks != IGNORED, 0), 4).permute(0, 3, 1, 2)
    losses = sorted((loss for _, loss in pixel_losses(logits.double(), masks)), reverse=True)
    kept = [loss for loss in losses if math.exp(-loss) < 0.7]
    if len(kept) < masks.numel() // 16:
        kept = losses[: masks.numel() // 16]
    expected = sum(kept) / len(kept) if kept else 0.0
    assert ohem_cross_entropy(logits, masks, IGNORED).item() == pytest.approx(expected, rel=1e-3, abs=1e-6)


def near_boundaries(masks: Tensor) -> list[bool]:
    """Whether each pixel that is not ignored, in order, has another class in its window of 5×5."""
    _, height, width = masks.shape
    found = []
    for mask in masks.tolist():
        for y in range(height):
            for x in range(width):
                window = [row[max(0, x - 2) : x + 3] for row in mask[max(0, y - 2) : y + 3]]
                if mask[y][x] != IGNORED:
                    found.append(any(other not in (mask[y][x], IGNORED) for row in window for other in row))
    return found


def regions(seed: int) -> tuple[Tensor, Tensor]:
    """Logits and masks of two classes with a straight boundary, other pixels and lines ignored."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(2, 9, 12, dtype=torch.int64)
    masks[:, :, 5:] = 1
    masks[1, 4:6] = IGNORED
    masks[torch.rand(masks.shape, generator=generator) < 0.1] = IGNORED
    return torch.randn(2, 3, 9, 12, generator=generator), masks


@given(st.integers(0, 1000))
def test_boundary_weights_against_brute_force(seed: int) -> None:
    logits, masks = regions(seed)
    near, losses = near_boundaries(masks), [loss for _, loss in pixel_losses(logits, masks)]
    assert True in near
    assert False in near
    weights = [6 if is_near else 1 for is_near in near]
    expected = sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)
    assert cross_entropy(logits, masks, IGNORED, boundary_weight=5.0).item() == pytest.approx(expected, rel=1e-4)


def test_class_and_boundary_weights_multiply() -> None:
    logits, masks = regions(0)
    class_weights = [0.5, 2.0, 1.0]
    pairs = list(zip(near_boundaries(masks), pixel_losses(logits, masks), strict=True))
    weights = [class_weights[true_class] * (6 if near else 1) for near, (true_class, _) in pairs]
    expected = sum(w * loss for w, (_, (_, loss)) in zip(weights, pairs, strict=True)) / sum(weights)
    found = cross_entropy(logits, masks, IGNORED, torch.tensor(class_weights), boundary_weight=5.0)
    assert found.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("sharpness", [1.0, 12.0])
def test_boundary_weights_of_the_hard_pixels_against_brute_force(sharpness: float) -> None:
    logits, masks = regions(0)
    logits = logits + sharpness * F.one_hot(masks.where(masks != IGNORED, 0), 3).permute(0, 3, 1, 2)
    pairs = list(zip([loss for _, loss in pixel_losses(logits, masks)], near_boundaries(masks), strict=True))
    kept = [pair for pair in pairs if math.exp(-pair[0]) < 0.7]
    assert (len(kept) < masks.numel() // 16) == (sharpness == 12)
    if sharpness == 12:
        kept = sorted(pairs, reverse=True)[: masks.numel() // 16]
    assert {near for _, near in kept} == {False, True}
    weights = [6 if near else 1 for _, near in kept]
    expected = sum(w * loss for w, (loss, _) in zip(weights, kept, strict=True)) / sum(weights)
    assert ohem_cross_entropy(logits, masks, IGNORED, boundary_weight=5.0).item() == pytest.approx(expected, rel=1e-4)


@given(st.integers(0, 1000), st.sampled_from([cross_entropy, ohem_cross_entropy]))
def test_ignored_areas_are_no_boundaries(seed: int, loss: Callable[..., Tensor]) -> None:
    logits, _ = example(seed)
    masks = torch.ones(2, 5, 6, dtype=torch.int64)
    masks[:, ::3] = IGNORED
    assert loss(logits, masks, IGNORED, boundary_weight=5.0).item() == pytest.approx(
        loss(logits, masks, IGNORED).item(), rel=1e-5
    )


def brute_force_detail_target(masks: Tensor) -> Tensor:
    _, height, width = masks.shape
    target = torch.zeros(len(masks), 1, height, width)
    for n, mask in enumerate(masks.tolist()):
        edges = {}
        for stride in (1, 2, 4):
            rows, columns = math.ceil(height / stride), math.ceil(width / stride)
            for y in range(rows):
                for x in range(columns):
                    laplacian = 8 * mask[y * stride][x * stride]
                    for dy in (-1, 0, 1):
                        for dx in (-1, 0, 1):
                            v, u = y * stride + dy, x * stride + dx
                            if (dy or dx) and 0 <= v < height and 0 <= u < width:
                                laplacian -= mask[v][u]
                    edges[stride, y, x] = max(laplacian, 0) > 0.1
            edges[stride] = rows, columns
        for y in range(height):
            for x in range(width):
                tenths = 0
                for stride, weight in ((1, 6), (2, 3), (4, 1)):
                    rows, columns = edges[stride]
                    tenths += weight * edges[stride, y * rows // height, x * columns // width]
                target[n, 0, y, x] = tenths / 10 > 0.1
    return target


@given(st.integers(0, 1000), st.integers(1, 13), st.integers(1, 13))
def test_detail_target_against_brute_force(seed: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 3, (2, height, width), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.5] = 1
    assert torch.equal(detail_target(masks), brute_force_detail_target(masks))


def test_detail_target_of_a_square_is_its_inner_edge() -> None:
    masks = torch.zeros(1, 12, 12, dtype=torch.int64)
    masks[:, 3:9, 3:9] = 1
    target = detail_target(masks)[0, 0].bool()
    assert target[3, 3:9].all()
    assert target[3:9, 8].all()
    assert not target[:2].any()
    assert not target[5:7, 5:7].any()


def test_detail_loss_against_brute_force() -> None:
    logits, masks = example(5)
    logits = logits[:, :1]
    target = brute_force_detail_target(masks)
    entropies, dices = [], []
    for n in range(2):
        overlap = total = 0.0
        for y in range(5):
            for x in range(6):
                if masks[n, y, x] != IGNORED:
                    probability, truth = 1 / (1 + math.exp(-logits[n, 0, y, x].item())), target[n, 0, y, x].item()
                    entropies.append(-math.log(probability if truth else 1 - probability))
                    overlap += probability * truth
                    total += probability + truth
        dices.append(1 - (2 * overlap + 1) / (total + 1))
    expected = sum(entropies) / len(entropies) + sum(dices) / 2
    assert detail_loss(logits, masks, IGNORED).item() == pytest.approx(expected, rel=1e-5)


def test_distillation_is_the_mean_divergence_of_labelled_pixels() -> None:
    (logits, masks), (taught, _) = example(0), example(1)
    expected = []
    for n, y, x in (masks != IGNORED).nonzero().tolist():
        p, q = taught[n, :, y, x].softmax(0), logits[n, :, y, x].softmax(0)
        expected.append(sum(float(p[c] * (p[c] / q[c]).log()) for c in range(4)))
    assert distillation(logits, taught, masks, IGNORED).item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert distillation(taught, taught, masks, IGNORED).item() == pytest.approx(0, abs=1e-6)
    assert distillation(logits, taught, torch.full_like(masks, IGNORED), IGNORED).item() == 0


def test_distillation_resizes_both_to_the_masks() -> None:
    (logits, masks), (taught, _) = example(0), example(1)
    small = taught[..., :3, :3]
    resized = F.interpolate(small, (5, 6), mode="bilinear", align_corners=False)
    assert torch.equal(distillation(logits, small, masks, IGNORED), distillation(logits, resized, masks, IGNORED))
