import pytest

from baselines.unet import unet


def test_published_network_has_the_papers_parameters() -> None:
    paper = unet(2, in_channels=1, norm="none", bias=True).describe((64, 64))
    assert paper.params == paper.params_training == 31_030_658


def test_features_halve_four_times_and_come_back() -> None:
    shapes = {node.name: node.shape for node in unet(3).describe((33, 50)).nodes}
    halved = [(64, 33, 50), (128, 17, 25), (256, 9, 13), (512, 5, 7), (1024, 3, 4)]
    assert [shapes[f"backbone.level{level}.conv2"] for level in range(5)] == halved
    assert shapes["decoder.level0.concat"] == (128, 33, 50)
    assert shapes["head.upsample"] == (3, 33, 50)


@pytest.mark.parametrize("size", [(33, 50), (16, 16), (1, 1)])
def test_bilinear_decoder_resizes_instead(size: tuple[int, int]) -> None:
    network = unet(2, decoder="bilinear")
    assert {node.op.op for node in network.nodes} == {"input", "conv", "max_pool", "resize", "concat"}
    assert network.describe(size).nodes[-1].shape == (2, *size)
