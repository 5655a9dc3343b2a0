"""What a design keeps of a backbone, and the levels that its decoder takes."""

import pytest

from baselines.backbones.stages import STAGES
from baselines.encoder_decoder import Design, Kept, Level


def test_stages_have_the_strides_of_the_published_backbones() -> None:
    assert STAGES["mobilenetv2"].strides == (2, 4, 8, 16, 16, 32, 32)
    assert STAGES["efficientnet_lite2"].strides == (2, 4, 8, 16, 16, 32, 32)
    assert STAGES["resnet50"].strides == (4, 8, 16, 32)
    assert [plan.channels for plan in STAGES["efficientnet_lite2"].plans] == [16, 24, 48, 88, 120, 208, 352]


@pytest.mark.parametrize("backbone", STAGES)
def test_by_default_all_of_a_backbone_is_kept(backbone: str) -> None:
    published = STAGES[backbone].plans
    shape = Design.model_validate({"backbone": backbone}).shape
    assert [stage.width for stage in shape.stages] == [1.0] * len(published)
    assert [stage.blocks for stage in shape.stages] == [plan.blocks for plan in published]
    assert [stage.kernel for stage in shape.stages] == [plan.kernel for plan in published]
    expansions = [plan.expansion if plan.expansion and plan.expansion > 1 else None for plan in published]
    assert [stage.expansion for stage in shape.stages] == expansions


@pytest.mark.parametrize(("trunk_end", "last_stages", "stages"), [(32, 2, 7), (32, 1, 6), (16, 2, 5), (16, 1, 4)])
def test_the_trunk_ends_with_any_of_its_last_stages(trunk_end: int, last_stages: int, stages: int) -> None:
    given = {"trunk_end": trunk_end, "last_stages": last_stages, "output_stride": 16}
    assert len(Design.model_validate(given).shape.stages) == stages
    resnet = Design.model_validate({**given, "backbone": "resnet18"})
    assert len(resnet.shape.stages) == (4 if trunk_end == 32 else 3)


def test_stages_are_kept_by_their_stride() -> None:
    kept = (Kept(), Kept(width=0.5), Kept(depth=0.34), Kept(kernel=7), Kept(expansion=3, atrous=True))
    stages = Design(stages=kept).shape.stages
    assert [stage.width for stage in stages] == [1, 0.5, 1, 1, 1, 1, 1]
    assert [stage.blocks for stage in stages] == [1, 2, 1, 4, 3, 3, 1]
    assert [stage.kernel for stage in stages] == [3, 3, 3, 7, 7, 3, 3]
    assert [stage.expansion for stage in stages] == [None, 6, 6, 6, 6, 3, 3]
    assert [stage.atrous for stage in stages] == [False] * 5 + [True] * 2


def test_the_width_of_all_ends_at_the_published_width_of_the_backbone() -> None:
    kept = (Kept(), Kept(width=0.25), Kept(width=0.75), Kept(), Kept())
    assert [stage.width for stage in Design(width=2.0, stages=kept).shape.stages] == [1, 0.5, 1, 1, 1, 1, 1]
    assert [stage.width for stage in Design(width=0.5, stages=kept).shape.stages[:3]] == [0.5, 0.125, 0.375]


def test_a_decoder_takes_only_maps_that_are_larger_than_the_deepest() -> None:
    taken = Level(fusion="add")
    levels = {"level16": taken, "level8": Level(), "level4": taken}
    assert Design(output_stride=32, **levels).levels == [(16, taken), (4, taken)]
    assert Design(output_stride=16, **levels).levels == [(4, taken)]
