import pytest

from baselines.deeplabv3 import deeplabv3_mobilenetv2, deeplabv3_resnet50, deeplabv3_resnet101, deeplabv3_xception65


def test_torchvisions_layout_has_torchvisions_parameters() -> None:
    architecture = deeplabv3_resnet50(21, output_stride=8, last_conv=True)
    assert architecture.describe((64, 64)).params == 39_638_869  # 42,004,074 with torchvision's auxiliary head
    assert [architecture[f"cell.atrous{rate}"].op.rate for rate in (12, 24, 36)] == [(12, 12), (24, 24), (36, 36)]


def test_the_paper_has_no_convolution_between_aspp_and_classifier() -> None:
    paper = deeplabv3_resnet101(21).describe((64, 64))
    assert paper.stages["head"].params == 256 * 21 + 21
    assert paper.stages["backbone"].params == 42_500_160


def test_image_pooling_can_be_left_out() -> None:
    architecture = deeplabv3_mobilenetv2(image_pooling=False)
    assert architecture.channels("cell.concat") == 4 * 256


def test_multi_grid_belongs_to_the_last_three_convolutions() -> None:
    rates = [
        deeplabv3_xception65(multi_grid=True, output_stride=8)[f"backbone.exit.block2.conv{i}"].op.rate[0]
        for i in (1, 2, 3)
    ]
    assert rates == [4, 8, 16]
    with pytest.raises(ValueError, match="multi_grid is true, but must be false on mobilenetv2"):
        deeplabv3_mobilenetv2(multi_grid=True)
