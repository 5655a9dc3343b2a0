"""Small stand-ins: a network with a backbone, norm, dropout and training outputs, and batches for it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, nn

IGNORED = 255


@dataclass
class Batch:
    inputs: dict[str, Tensor]
    masks: Tensor


class TinyNetwork(nn.Module):
    """3 classes, logits at half size; `auxiliary` and `detail` outputs while training."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(8, 3, 1)
        self.auxiliary = nn.Conv2d(8, 3, 1)
        self.detail = nn.Conv2d(8, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.outputs({"image": image})["head"]

    def outputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        features = self.backbone(inputs["image"])
        outputs = {"head": self.head(self.dropout(features))}
        if self.training:
            outputs |= {"auxiliary16.logits": self.auxiliary(features), "detail.logits": self.detail(features)}
        return outputs


def tiny_network(seed: int = 0, dropout: float = 0.2) -> TinyNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyNetwork(dropout)


def batches(start_step: int = 0) -> Iterator[Batch]:
    """Endless batches by step, of images whose class is the channel that is brightest."""
    for step in count(start_step):
        generator = torch.Generator().manual_seed(step)
        image = torch.rand(2, 3, 8, 8, generator=generator).repeat_interleave(2, 2).repeat_interleave(2, 3)
        masks = image.argmax(dim=1)
        masks[:, :2] = IGNORED
        yield Batch({"image": image}, masks)
