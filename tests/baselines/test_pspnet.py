from baselines.pspnet import pspnet_resnet50


def test_pyramid_pooling_keeps_the_features_beside_four_grids() -> None:
    architecture = pspnet_resnet50(21)
    assert architecture["cell.concat"].inputs[0] == "backbone.layer4.2"
    grids = [architecture[name].op.grid for name in architecture["cell.concat"].inputs[1:]]
    assert grids == [(1, 1), (2, 2), (3, 3), (6, 6)]
    assert architecture.channels("cell.concat") == 2048 + 4 * 512
    shapes = {node.name: node.shape for node in architecture.describe((473, 473)).nodes}
    assert shapes["cell.projection"] == (512, 60, 60)


def test_parameters_are_those_of_its_layers() -> None:
    description = pspnet_resnet50(21).describe((64, 64))
    assert description.stages["backbone"].params == 23_508_032
    assert description.stages["cell"].params == 4 * (2048 * 512 + 2 * 512) + (4096 * 512 * 9 + 2 * 512)
    assert description.stages["head"].params == 512 * 21 + 21
    assert description.params_training - description.params == 1024 * 256 * 9 + 2 * 256 + 256 * 21 + 21
