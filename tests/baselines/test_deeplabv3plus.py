import pytest

from baselines.deeplabv3plus import deeplabv3plus_mobilenetv2


@pytest.mark.parametrize(("output_stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36))])
def test_output_stride_sets_the_size_and_the_rates_of_aspp(output_stride: int, rates: tuple[int, ...]) -> None:
    architecture = deeplabv3plus_mobilenetv2(output_stride=output_stride)
    assert [architecture[f"cell.atrous{rate}"].op.rate for rate in rates] == [(rate, rate) for rate in rates]
    shapes = {node.name: node.shape for node in architecture.describe((512, 1024)).nodes}
    assert shapes["backbone.features.17"] == (320, 512 // output_stride, 1024 // output_stride)
    assert shapes["cell.concat"] == (5 * 256, 512 // output_stride, 1024 // output_stride)
    assert shapes["decoder.concat"] == (304, 128, 256)
    assert shapes["head.upsample"] == (19, 512, 1024)


def test_aspp_has_the_true_number_of_weights() -> None:
    nodes = {node.name: node for node in deeplabv3plus_mobilenetv2().describe((1025, 2049)).nodes}
    branches = [node for name, node in nodes.items() if name.startswith("cell.") and "cell.concat" not in name][:5]
    assert sum(node.weights for node in branches) == 418_240
    assert nodes["cell.conv1x1"].madds == 320 * 256 * 65 * 129
    assert nodes["cell.image_pool"].madds == 320 * 256
    assert nodes["cell.projection"].weights == 5 * 256 * 256


def test_unknown_output_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="output_stride is 64"):
        deeplabv3plus_mobilenetv2(output_stride=64)
