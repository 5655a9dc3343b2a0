"""The stages of the published backbones that have shapes, with the strides of their maps."""

from typing import NamedTuple

from baselines.backbones.efficientnet_lite import LAYERS as EFFICIENTNET_LITE
from baselines.backbones.mobilenetv2 import LAYERS as MOBILENETV2
from baselines.backbones.resnet import PUBLISHED as RESNET
from baselines.backbones.shape import StagePlan


class PublishedStages(NamedTuple):
    """The stages of a backbone, and the stride of the map that its first stage reads."""

    plans: tuple[StagePlan, ...]
    stem_stride: int

    @property
    def strides(self) -> tuple[int, ...]:
        """The stride of each stage's map."""
        strides, total = [], self.stem_stride
        for plan in self.plans:
            total *= plan.stride
            strides.append(total)
        return tuple(strides)


STAGES = {
    "mobilenetv2": PublishedStages(tuple(MOBILENETV2.stages), 2),
    **{name: PublishedStages(tuple(layers.stages), 2) for name, layers in EFFICIENTNET_LITE.items()},
    **{name: PublishedStages(tuple(published.stages), 4) for name, published in RESNET.items()},
}
"""By the backbone's name."""
