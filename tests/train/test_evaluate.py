from collections.abc import Mapping, Sequence
from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasseg.train.evaluate import class_scores, evaluate
from nasseg.train.metrics import MetricsCounter

from .tiny import IGNORED, Batch, batches, tiny_network

CPU = torch.device("cpu")


class Brightest(nn.Module):
    """The image's channels as logits: right by construction on `batches`."""

    def outputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"logits": 10 * inputs["image"]}


def test_a_right_network_scores_one() -> None:
    metrics = evaluate(Brightest(), islice(batches(), 3), 3, IGNORED, CPU, boundary=True)  # type: ignore[arg-type]
    assert metrics.miou == 1
    assert metrics.boundary_miou == 1
    assert sum(map(sum, metrics.confusion)) == 3 * 2 * 14 * 16


def test_without_boundary_none_is_measured() -> None:
    assert evaluate(Brightest(), islice(batches(), 1), 3, IGNORED, CPU).boundary_miou is None  # type: ignore[arg-type]


@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((1.0,), True), ((0.5, 1.0, 1.5), True)])
def test_views_are_averaged(scales: Sequence[float], flip: bool) -> None:
    network = tiny_network().eval()
    batch = next(batches())
    probabilities = []
    with torch.no_grad():
        for scale in scales:
            size = round(16 * scale)
            image = F.interpolate(batch.inputs["image"], (size, size), mode="bilinear", antialias=scale < 1)
            for mirrored in (False, True) if flip else (False,):
                logits = network(image.flip(-1) if mirrored else image)
                logits = F.interpolate(logits.flip(-1) if mirrored else logits, (16, 16), mode="bilinear")
                probabilities.append(logits.softmax(dim=1))
    counter = MetricsCounter(3, IGNORED, CPU)
    counter.update(torch.stack(probabilities).mean(dim=0).argmax(dim=1), batch.masks)
    assert evaluate(network, [batch], 3, IGNORED, CPU, scales, flip) == counter.compute()  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [(16, 16), (40, 40), (5, 16), (7, 4)])
def test_windows_cover_every_pixel_and_agree_where_they_overlap(window: tuple[int, int]) -> None:
    batch = next(batches())
    seen: list[tuple[int, ...]] = []

    class Watched(Brightest):
        def outputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            seen.append(tuple(inputs["image"].shape[-2:]))
            return super().outputs(inputs)

    scores = class_scores(Watched(), batch.inputs, (16, 16), window=window)  # type: ignore[arg-type]
    torch.testing.assert_close(scores, 10 * batch.inputs["image"])
    assert set(seen) == {(min(window[0], 16), min(window[1], 16))}
    assert len(seen) == {(16, 16): 1, (40, 40): 1, (5, 16): 5, (7, 4): 4 * 7}[window]


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored_and_nothing_changes(training: bool) -> None:
    network = tiny_network().train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    evaluate(network, islice(batches(), 2), 3, IGNORED, CPU)  # type: ignore[arg-type]
    assert network.training is training
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


def test_images_of_many_sizes() -> None:
    images = [torch.rand(1, 3, 5, 7), torch.rand(2, 3, 4, 4)]
    stream = [Batch({"image": image}, image.argmax(dim=1)) for image in images]
    assert evaluate(Brightest(), stream, 3, IGNORED, CPU).miou == 1  # type: ignore[arg-type]


def test_classes_of_another_data_set() -> None:
    with pytest.raises(ValueError, match="The network has 3 classes, but the data has 5"):
        evaluate(Brightest(), batches(), 5, IGNORED, CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize("scales", [(), (1.0, 0.0)])
def test_scales_must_be_positive(scales: Sequence[float]) -> None:
    with pytest.raises(ValueError, match="must be one or more positive numbers"):
        evaluate(Brightest(), batches(), 3, IGNORED, CPU, scales)  # type: ignore[arg-type]
